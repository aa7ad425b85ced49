"""The hashes that are installed from are those of the locked releases."""

import pathlib
import re

import pytest
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[1]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
OF_THE_INDEX = {"torch"}
"""Taken from whichever index has a build without CUDA; see launch/hashes.sh."""


def releases(text):
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_release_has_hashes(lock):
    locked, text = releases((ROOT / lock).read_text()), (ROOT / "launch" / "hashes" / lock).read_text()
    assert len(LOCKS) == 3 and len(locked) > 20
    wanted = {name: version for name, version in locked.items() if name not in OF_THE_INDEX}
    assert releases(text) == wanted, "run launch/hashes.sh"
    for release in re.split(r"^(?=\S+==)", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", release), release
