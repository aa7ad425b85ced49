"""What `pip install emokd` brings: the package with its configurations, found from anywhere."""

import configparser
import fnmatch
import json
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

from emokd.configuration import config as configuration

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = sorted(str(file.relative_to(ROOT / "configs")) for file in (ROOT / "configs").rglob("*.py"))


@pytest.fixture(scope="module")
def options():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_installed(options):
    """`setup.cfg` lists them one by one; whoever adds a folder adds a line there."""
    folders = {".".join(file.relative_to(ROOT).parent.parts) for file in (ROOT / "emokd").rglob("__init__.py")}
    assert set(options["options"]["packages"].split()) == folders | {"emokd.configs"}


def test_every_configuration_is_installed(options):
    assert options["options"]["package_dir"].split() == ["emokd.configs", "=", "configs"]
    pattern = options["options.package_data"]["emokd.configs"]
    assert CONFIGS and [file for file in CONFIGS if not fnmatch.fnmatchcase(file, pattern)] == []
    assert [file for file in CONFIGS if file.count("/") != 1] == []  # in a glob of setuptools a star takes no slash


LOAD = """
import json, pathlib, sys
import emokd
from emokd.configuration import config as configuration
from emokd.configuration.places import HOME
from emokd.studies.plan import create_study

assert HOME == pathlib.Path(emokd.__file__).parent, HOME
found = {name: configuration.load(name) for name in sys.argv[1:]}
create_study(found["emokd:studies/bounded_ferplus:small"])
print(json.dumps({name: json.loads(configuration.to_json(config)) for name, config in found.items()}))
"""
NAMES = (
    "emokd:smkd/quickstart:small", "emokd:bounded/quickstart:small", "configs/bounded/quickstart.py:small",
    "emokd:studies/bounded_ferplus:small",
)  # fmt: skip


@pytest.mark.slow
def test_an_installation_has_the_checkouts_configurations(tmp_path):
    """The source distribution makes the wheel, and the wheel's configurations are the checkout's, from anywhere."""
    build(copy_checkout(tmp_path / "checkout"), "build_sdist", tmp_path / "dist")
    (packed,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    build(next((tmp_path / "source").iterdir()), "build_wheel", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"emokd/configs/{file}" for file in CONFIGS} <= set(names)
    assert {name.split("/")[0] for name in names if not re.match(r"emokd-.*dist-info", name)} == {"emokd"}

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "below.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    loaded = json.loads(subprocess.check_output([python, "-c", LOAD, *NAMES], cwd=elsewhere))
    assert loaded == {name: json.loads(configuration.to_json(configuration.load(name))) for name in NAMES}
    listed = subprocess.check_output([python, "-m", "emokd.train", "--list_configs"], cwd=elsewhere, text=True)
    assert "emokd:smkd/quickstart" in listed


IMPORT = """
import time
begun = time.perf_counter()
import emokd
emokd.load(__import__("sys").argv[1])
print(time.perf_counter() - begun)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_extra_onnx_brings_no_jax(tmp_path):
    """Installs the wheel with its extra from the package index; prints size and time, which no test asserts."""
    build(copy_checkout(tmp_path / "checkout"), "build_wheel", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    install = [python, "-m", "pip", "install", "-q", "--no-cache-dir", f"{wheel}[onnx]"]
    done = subprocess.run(install, capture_output=True, text=True)
    if "from versions: none" in done.stderr:
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    listed = json.loads(subprocess.check_output([python, "-m", "pip", "list", "--format=json"]))
    names = {each["name"].lower() for each in listed}
    assert "onnxruntime" in names and not {"jax", "jaxlib", "flax", "scipy", "matplotlib"} & names
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file() and "pip" not in file.parts)
    exported = export_small(tmp_path / "student")
    for _ in range(2):  # the first time Python compiles what it imports
        seconds = subprocess.check_output([python, "-c", IMPORT, exported], cwd=tmp_path, text=True)
    print(f"{len(names)} packages, {size / 1e6:.0f} MB, a model open after {float(seconds):.2f} s")
    done = subprocess.run([python, "-m", "emokd.train"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and "pip install emokd[train]" in done.stderr


def export_small(folder: pathlib.Path) -> pathlib.Path:
    """A small model with random weights, exported."""
    from random_state import random_tree

    from emokd.exporting.export import export
    from emokd.models.network import NetworkSpec, functional
    from emokd.models.preprocessing import Preprocessing
    from emokd.weights.model_folder import save_model

    spec = NetworkSpec("basic_cnn", {"width": 2, "size": 32}, {"expression": 2}, {}, Preprocessing(32))
    params, stats = functional(spec).abstract
    save_model(folder, spec, random_tree(params, 1), random_tree(stats, 2), {})
    export(folder, folder.with_name("exported") / "model.onnx", timed=False)
    return folder.with_name("exported")


def copy_checkout(folder: pathlib.Path) -> pathlib.Path:
    """A copy of what a distribution is built from: building leaves files behind."""
    for name in ("configs", "emokd"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / file, folder)
    return folder


def build(folder: pathlib.Path, what: str, output: pathlib.Path) -> None:
    """Calls one of setuptools' hooks in `folder`, as pip does, but with the setuptools that is here."""
    output.mkdir(exist_ok=True)
    program = f"from setuptools import build_meta; build_meta.{what}({str(output)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)
