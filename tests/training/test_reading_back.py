"""The first checkpoint of a run is read back: a place that loses what it takes is found before the work is done."""

import dataclasses
import shutil

import jax.numpy as jnp
import pytest
from test_damaged_checkpoints import Stream, state_at

from emokd.errors import InputError
from emokd.training import checkpoints as module
from emokd.training import checksums
from emokd.training.checkpoints import Checkpoints, steps_in
from emokd.training.selection import Best

BEST = Best(-1, 0.0)


def loses(monkeypatch, what):
    """A file system that takes a checkpoint's files and does not give some of them again.

    They are gone before checksums are taken, so that these are right.
    """
    write = checksums.write

    def write_what_is_left(folder):
        what(folder / "state")
        write(folder)

    monkeypatch.setattr(checksums, "write", write_what_is_left)


def arrays(state):
    for folder in (path for path in state.rglob("d") if path.is_dir()):
        shutil.rmtree(folder)


def index(state):
    (state / "manifest.ocdbt").unlink()


@pytest.mark.parametrize(
    ("what", "fault"), [(arrays, "cannot be read back: "), (index, "it lacks state/manifest.ocdbt")]
)
def test_a_place_that_loses_arrays_is_refused_at_the_first_checkpoint(tmp_path, monkeypatch, what, fault):
    loses(monkeypatch, what)
    checkpoints = Checkpoints(tmp_path, keep=2)
    with pytest.raises(InputError) as refused:
        checkpoints.save(state_at(3), Stream(), BEST)
    checkpoints.close()
    text = str(refused.value)
    assert text.startswith(f"Checkpoint {tmp_path / 'checkpoints' / '3'}, the first that was saved, ") and fault in text
    assert "It is now 3.set_aside. Give a --workdir on another file system." in text and "\n" not in text
    assert not steps_in(tmp_path / "checkpoints")  # the same command begins anew


def test_numbers_that_are_not_those_that_were_saved_are_noticed(tmp_path, monkeypatch):
    """As from a file system's cache that is not renewed: all files are whole, but another checkpoint's."""
    other = Checkpoints(tmp_path / "other", keep=1)
    other.save(state_at(4), Stream(), BEST)
    other.close()

    def exchange(state):
        shutil.rmtree(state)
        shutil.copytree(tmp_path / "other" / "checkpoints" / "4" / "state", state)

    loses(monkeypatch, exchange)
    checkpoints = Checkpoints(tmp_path, keep=2)
    with pytest.raises(InputError, match="cannot be read back: .* is not what was saved"):
        checkpoints.save(state_at(3), Stream(), BEST)
    checkpoints.close()


def test_only_the_first_that_a_process_saves_is_read(tmp_path, monkeypatch):
    seen = []
    difference = module.difference
    monkeypatch.setattr(module, "difference", lambda folder, state: (seen.append(folder), difference(folder, state))[1])
    for first in (1, 3):
        checkpoints = Checkpoints(tmp_path, keep=4)
        for step in (first, first + 1):
            checkpoints.save(state_at(step), Stream(), BEST)
        checkpoints.close()
    assert [folder.parent.name for folder in seen] == ["1", "3"]


def test_nan_is_compared_by_its_bits(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=1)
    state = dataclasses.replace(state_at(1), params={"w": jnp.asarray([jnp.nan, -0.0])})
    checkpoints.save(state, Stream(), BEST)
    checkpoints.close()
    assert steps_in(tmp_path / "checkpoints") == [1]
