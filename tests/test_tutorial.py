"""The tutorial and the notebook, run as they stand: their files, their commands, in order, in an empty folder."""

import configparser
import csv
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from emokd.configuration import config as configuration

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
NOTEBOOK = json.loads((ROOT / "docs" / "notebook.ipynb").read_text())
# In the page's order: ("python", text) with the file's name in its first line, or ("bash", text) to be run.
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# Run once they are there; the other files are configurations, or are started by the page's commands.
READERS = ("ask.py", "elsewhere.py")
WITHOUT_JAX = "import sys; sys.modules['jax'] = sys.modules['emokd'] = None; exec(open('elsewhere.py').read())"


def file_name(text: str) -> str:
    return re.match(r"# (\w+\.py)\n", text)[1]


def cells(kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def plain_python(cell: str) -> str:
    """A cell without IPython's own: `!` starts a program, and `%pip` is what the installation has done."""
    lines = re.sub(r"^( *)%pip .*$", r"\1raise", cell, flags=re.MULTILINE).splitlines()
    return "\n".join(f"run({line[1:]!r}, shell=True, check=True)" if line[:1] == "!" else line for line in lines)


def run(folder: pathlib.Path, command: list[str]) -> str:
    """Runs a command as a reader would, with this checkout's emokd; its standard output."""
    environment = os.environ | {
        "PATH": f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_is_short_and_installs_what_there_is():
    commands = [line for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
    assert len([line for line in commands if "-m emokd." in line]) < 10
    installed = [line for line in commands if line.startswith("pip ")]
    assert installed == ['pip install "./emokd[export]"']
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    assert "export" in extras["options.extras_require"]


def test_its_configurations_can_be_read(tmp_path):
    for name in ("mine.py", "tables.py"):
        (text,) = [text for kind, text in BLOCKS if kind == "python" and file_name(text) == name]
        (tmp_path / name).write_text(text)
        whole, small = (configuration.load(f"{tmp_path / name}{argument}") for argument in ("", ":small"))
        assert {**whole, "phases": None} == {**small, "phases": None}
        assert all(phase.duration_steps == 4 for phase in small.phases.values())


def test_the_notebook_is_clean():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in NOTEBOOK["cells"]]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[\w-]{1,64}", each) for each in ids)
    code = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in cells("code"):
        compile(plain_python(cell), "cell", "exec")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_tutorial_runs(tmp_path):
    said = {}
    for kind, text in BLOCKS:
        if kind == "python":
            name = file_name(text)
            (tmp_path / name).write_text(text)
            if name in READERS:
                program = ["-c", WITHOUT_JAX] if name == "elsewhere.py" else [name]
                said[name] = run(tmp_path, [sys.executable, *program])
        elif not text.startswith("pip "):
            run(tmp_path, ["bash", "-euo", "pipefail", "-c", text])
    pictures = sorted(str(file.relative_to(tmp_path)) for file in tmp_path.glob("pictures/*/*.png"))
    assert len(pictures) == 160
    with open(tmp_path / "answers.csv", newline="") as file:
        answers = {row["file"]: row["expression"] for row in csv.DictReader(file)}
    assert sorted(answers) == pictures
    (asked,) = re.findall(r'student\("(.+?)"\)', PAGE)
    for name in READERS:  # with JAX, and with ONNX Runtime alone
        assert said[name].split()[0] == answers[asked], name
    mine = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    assert sorted(record["file"] for record in mine) == pictures and all("expression" in record for record in mine)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"trial{number}" for number in range(200, 240)]
    assert {row["expression"] for row in rows} <= {"calm", "tense"}
    for page in ("runs/quickstart/report.html", "sheet.png", "runs/quickstart/student_onnx/README.md"):
        assert (tmp_path / page).is_file(), page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_notebook_runs(tmp_path):
    program = "\n".join(["from subprocess import run", *map(plain_python, cells("code"))])
    (tmp_path / "notebook.py").write_text(program)
    said = run(tmp_path, [sys.executable, "notebook.py"])
    assert "labels alone 0." in said and "'valence_arousal'" in said
    assert (tmp_path / "runs/bounded/student_onnx/model.onnx").is_file()
