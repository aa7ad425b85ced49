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
    checkout = tmp_path / "checkout"
    for folder in ("configs", "emokd"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / file, checkout)
    build(checkout, "build_sdist", tmp_path / "dist")
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


def build(folder: pathlib.Path, what: str, output: pathlib.Path) -> None:
    """Calls one of setuptools' hooks in `folder`, as pip does, but with the setuptools that is here."""
    output.mkdir(exist_ok=True)
    program = f"from setuptools import build_meta; build_meta.{what}({str(output)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True, capture_output=True)
