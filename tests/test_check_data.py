"""The command that looks at a data set: what it prints, and its exit codes."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten pictures of each of two classes, no two alike."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(20):
        place = folder / ("happy", "sad")[i % 2]
        place.mkdir(exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(place / f"{i}.png")
    return folder


def check(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "emokd.check_data", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT), "EMOKD_COMPILATION_CACHE": ""}, capture_output=True, text=True,
    )  # fmt: skip


def test_a_clean_set_ends_with_0_and_a_sheet_is_written_where_asked(pictures, tmp_path):
    sheet = tmp_path / "sheet.png"
    done = check("--source=image_folder", f"--dir={pictures}", f"--sheet={sheet}")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["happy", "7", "1", "2", "10"] in lines and ["Findings:", "none"] in lines
    assert sheet.read_bytes().startswith(b"\x89PNG") and os.listdir(tmp_path) == ["sheet.png"]


def test_a_finding_ends_with_1(pictures):
    config = f"--config={ROOT}/configs/smkd/folder.py"
    copy = pictures / "sad" / "copy.png"
    copy.write_bytes((pictures / "happy" / "0.png").read_bytes())
    done = check(config, f"--config.data.dir={pictures}")
    copy.unlink()
    assert done.returncode == 1, done.stderr
    assert "- 1 sets of equal examples with different labels, 2 examples: happy/0.png = sad/copy.png." in done.stdout


def test_what_cannot_be_looked_at_ends_with_2(pictures):
    for arguments, message in (
        ((), "Give either --config=FILE or --source=NAME."),
        (("--source=imge_folder",), "Did you mean 'image_folder'?"),
        (("--source=image_folder", f"--dir={pictures}", "--options=[]"), "give a JSON object"),
        (("--source=image_folder", f"--dir={pictures}", '--options={"a.b": 1}'), '--options is {"a.b": 1}: '),
        (
            ("--source=image_folder", f"--dir={pictures}", "--sheet=nowhere/x.png"),
            "give a file in a folder that exists",
        ),
        (("--source=image_folder", f"--dir={pictures}", f"--options={'[' * 100_000}"), "--options is no JSON"),
    ):
        done = check(*arguments)
        assert (done.returncode, done.stdout) == (2, "") and message in done.stderr
