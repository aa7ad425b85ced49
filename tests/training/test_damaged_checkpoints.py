"""Checkpoints that something has damaged: noticed before they are used, and passed over for the newest whole one."""

import dataclasses
import logging
import pathlib
import shutil

import grain
import jax.numpy as jnp
import pytest

from emokd.data.prefetch import to_device
from emokd.errors import InputError
from emokd.jobs.predecessor import stored_shapes
from emokd.training import checksums
from emokd.training.checkpoints import Checkpoints, set_aside_damaged
from emokd.training.selection import Best
from emokd.training.state import State


class Stream:
    """A data iterator with a state, as grain's handler wants it."""

    def get_state(self) -> bytes:
        return b'{"next_index": 0}'


def state_at(step: int) -> State:
    empty: dict = {field.name: {} for field in dataclasses.fields(State)}
    return State(**{**empty, "step": jnp.int32(step), "params": {"w": jnp.full((300,), float(step))}})


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> pathlib.Path:
    """Checkpoints 1, 2 (the best) and 3."""
    folder = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(folder, keep=3)
    for step, best in ((1, Best(1, 0.1)), (2, Best(2, 0.9)), (3, Best(2, 0.9))):
        checkpoints.save(state_at(step), Stream(), best)
    checkpoints.close()
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> pathlib.Path:
    """A copy of these checkpoints."""
    shutil.copytree(saved / "checkpoints", tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def files_of(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    inside = [path for path in checkpoint.glob("*/**/*") if path.is_file() and path.name != "commit_success.txt"]
    assert any("ocdbt" in str(path) and path.parent.name == "d" for path in inside)
    return sorted(inside)


def test_whole_checkpoints_are_left_alone(folder):
    before = sorted(folder.rglob("*"))
    set_aside_damaged(folder)
    assert sorted(folder.rglob("*")) == before
    assert all(checksums.are_known(folder / step) and not checksums.damage(folder / step) for step in "123")


def test_the_shapes_of_a_checkpoint_are_read_without_orbaxs_warning_of_missing_metadata(folder, caplog):
    with caplog.at_level(logging.WARNING):
        assert stored_shapes(folder, 3)["params"]["w"].shape == (300,)
    assert not caplog.records


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": flip,
    "a cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_the_newest_is_noticed_and_the_one_before_is_used(saved, tmp_path, caplog, damage):
    for number, name in enumerate(path.relative_to(saved) for path in files_of(saved / "checkpoints" / "3")):
        place = tmp_path / str(number)
        shutil.copytree(saved / "checkpoints", place / "checkpoints")
        DAMAGES[damage](place / name)
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            set_aside_damaged(place / "checkpoints")
        assert sorted(path.name for path in (place / "checkpoints").iterdir()) == ["1", "2", "3.set_aside"], name
        (record,) = caplog.records
        assert "is damaged" in record.getMessage() and "goes on from step 2" in record.getMessage()


def test_a_checkpoint_whose_best_one_is_damaged_is_of_no_use(folder):
    flip(files_of(folder / "2")[0])
    set_aside_damaged(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2.set_aside", "3.set_aside"]


def test_where_all_are_damaged_nothing_is_touched_and_the_message_says_what_to_do(folder):
    for step in "123":
        flip(files_of(folder / step)[-1])
    with pytest.raises(InputError, match=r"Every checkpoint .* damaged \(3, 2, 1\).*Restore the folder .*train anew"):
        set_aside_damaged(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]


def test_an_empty_or_half_copied_folder_of_a_later_step_is_passed_over(folder, caplog):
    (folder / "99").mkdir()
    (folder / "98" / "state").mkdir(parents=True)
    set_aside_damaged(folder)
    assert {path.name for path in folder.iterdir()} == {"1", "2", "3", "98.set_aside", "99.set_aside"}
    assert "99 is empty, and passed over" in caplog.text and "98 is damaged (it lacks state/_METADATA)" in caplog.text
    checkpoints = Checkpoints(folder.parent, keep=3)
    assert checkpoints.latest() == 3
    checkpoints.close()


def test_a_run_goes_on_from_the_one_before_and_saves_the_step_again(folder):
    flip(files_of(folder / "3")[-1])
    checkpoints = Checkpoints(folder.parent, keep=3)
    assert checkpoints.latest() == 2
    state, best = checkpoints.restore(2, state_at(0))
    assert float(state.params["w"][0]) == 2.0 and best == Best(2, 0.9)
    checkpoints.save(state_at(3), Stream(), best)
    checkpoints.close()
    assert not checksums.damage(folder / "3") and (folder / "3.set_aside").exists()


def test_a_best_checkpoint_damaged_while_the_run_goes_on_is_not_used(folder):
    checkpoints = Checkpoints(folder.parent, keep=3)
    flip(files_of(folder / "2")[-1])
    with pytest.raises(InputError, match=r"2, the best of the run, is damaged: .*Start the same command again"):
        checkpoints.restore_weights(2, state_at(3))
    checkpoints.close()


def test_one_without_checksums_is_read_and_a_misfit_says_that_it_may_be_damaged(folder):
    (folder / "3" / checksums.CHECKSUMS).unlink()
    checkpoints = Checkpoints(folder.parent, keep=3)
    assert float(checkpoints.restore(3, state_at(0))[0].params["w"][0]) == 3.0
    other = dataclasses.replace(state_at(0), params={"v": jnp.zeros((2,))})
    with pytest.raises(InputError, match=r"does not fit .*or damaged, which cannot be told"):
        checkpoints.restore(3, other)
    with pytest.raises(
        InputError, match=r"Checkpoint \S+2 does not fit this configuration .*Use another --workdir\. D"
    ):
        checkpoints.restore(2, other)
    checkpoints.close()


def test_where_the_last_step_is_selected_a_damaged_best_one_does_not_matter(folder):
    flip(files_of(folder / "2")[0])
    checkpoints = Checkpoints(folder.parent, keep=3, best_is_needed=False)
    assert checkpoints.latest() == 3
    state, _ = checkpoints.restore(3, state_at(0))
    checkpoints.close()
    assert float(state.params["w"][0]) == 3.0


def test_one_without_checksums_and_without_its_data_position_is_passed_over(folder, caplog):
    (folder / "3" / checksums.CHECKSUMS).unlink()
    shutil.rmtree(folder / "3" / "data")
    set_aside_damaged(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3.set_aside"]
    assert "it lacks data/process_0-of-" in caplog.text


@pytest.mark.parametrize("content", ["cut", "", '{"next": 0}'])
def test_one_without_checksums_whose_data_position_is_damaged_says_so(folder, content):
    (folder / "3" / checksums.CHECKSUMS).unlink()
    [position] = (folder / "3" / "data").glob("process_0-of-*")
    position.write_text(content)
    checkpoints = Checkpoints(folder.parent, keep=3)
    stream = to_device(iter(grain.MapDataset.range(9).to_iter_dataset()), lambda batch: batch)
    with pytest.raises(InputError, match=r"3 does not say at which batch it was saved .*Remove this folder"):
        checkpoints.restore_iterator(3, stream)
    checkpoints.close()


@pytest.mark.parametrize("content", ["[]", "3", '{"item_handlers": 3}', '{"custom_metadata": []}', "", "\0", None])
def test_orbax_can_do_without_its_notes(folder, content):
    for step, notes in (("3", content), ("2", "[1]")):
        if notes is None:
            (folder / step / "_CHECKPOINT_METADATA").unlink()
        else:
            (folder / step / "_CHECKPOINT_METADATA").write_text(notes)
    checkpoints = Checkpoints(folder.parent, keep=3)
    assert checkpoints.latest() == 3
    assert float(checkpoints.restore(3, state_at(0))[0].params["w"][0]) == 3.0
    checkpoints.save(state_at(4), Stream(), Best(2, 0.9))
    checkpoints.close()
    assert not checksums.damage(folder / "4")
