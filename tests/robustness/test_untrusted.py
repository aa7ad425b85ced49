"""Files of strangers: nothing in them is run, none names a place outside its folder, no name breaks what prints it.

Every payload would leave a mark.
"""

import json
import logging
import pathlib
import pickle
import sys
import zipfile
import zlib
from html.parser import HTMLParser

import h5py
import numpy as np
import pytest
from PIL import Image
from small_jobs import paint

from emokd.configuration import config as configuration
from emokd.data.arrays import read_npz
from emokd.data.cache import reader
from emokd.data.cache.answers import AnswersFile
from emokd.data.files.store import Archive
from emokd.data.sources import feature_tables, manifest
from emokd.errors import InputError
from emokd.jobs import command, job, workdir
from emokd.models.network import NetworkSpec, functional
from emokd.recipes import supervised
from emokd.weighting import chain
from emokd.weights import model_folder
from emokd.weights.description import sealed
from emokd.weights.formats import read_file


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: pathlib.Path):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.fixture
def mark(tmp_path) -> pathlib.Path:
    """A place where nothing may appear."""
    place = tmp_path / "mark"
    yield place
    assert not place.exists()


def test_the_payload_would_leave_its_mark(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar", ".ckpt", ".pkl"])
@pytest.mark.parametrize("form", ["pickle", "old pickle", "torch", "torch, old"])
def test_pickles_of_weights(tmp_path, mark, suffix, form):
    import torch

    path = tmp_path / f"x{suffix}"
    if form.startswith("torch"):
        torch.save({"state_dict": Payload(mark)}, path, _use_new_zipfile_serialization=form == "torch")
    else:
        path.write_bytes(pickle.dumps({"a": Payload(mark)}, protocol=4 if form == "pickle" else 0))
    with pytest.raises(InputError):
        read_file(path)


def objects(mark) -> np.ndarray:
    return np.array([Payload(mark)] * 2, object)


def test_arrays_of_objects(tmp_path, mark):
    arrays = {"id": objects(mark), "names": objects(mark), "x": objects(mark), "classes": objects(mark)}
    np.savez(tmp_path / "x.npz", **arrays)
    (tmp_path / "labels.csv").write_text("id,label\na,b\n")
    for read in (
        lambda: read_npz(str(tmp_path / "x.npz"), ["x"]),
        lambda: AnswersFile(tmp_path / "x.npz"),
        lambda: feature_tables.load(str(tmp_path), {"tables": {"x": "x.npz:x"}}),
        lambda: read_file(tmp_path / "x.npz"),
    ):
        with pytest.raises(InputError):
            read()


@pytest.mark.parametrize("name", [reader.FEATURES, reader.INDEX])
def test_caches_of_objects(tmp_path, mark, name):
    np.save(tmp_path / name, objects(mark), allow_pickle=True)
    with pytest.raises(InputError):
        reader._open(tmp_path / name, "<f4")


def test_lambdas_of_keras(tmp_path, mark):
    code = f"open({str(mark)!r}, 'w')"
    layer = {"class_name": "Lambda", "config": {"function": [code, None, None], "function_type": "lambda"}}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}})
        file.create_group("model_weights/lambda/lambda")["kernel:0"] = np.ones((2, 2), np.float32)
    assert len(read_file(tmp_path / "x.h5")[0]) == 1
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"config": {"layers": [layer]}}))
        archive.write(tmp_path / "x.h5", "model.weights.h5")
    with pytest.raises(InputError, match=r"a \.keras archive"):
        read_file(tmp_path / "x.keras")


@pytest.fixture
def module(tmp_path, mark, monkeypatch) -> str:
    """An import path whose module leaves a mark when it is imported."""
    (tmp_path / "of_a_stranger.py").write_text(f"open({str(mark)!r}, 'w')\ndef make(*a, **k): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "of_a_stranger:make"
    assert "of_a_stranger" not in sys.modules


@pytest.mark.parametrize("place", [("recipe",), ("student", "backbone")])
def test_import_paths_in_a_stored_configuration(tmp_path, module, place):
    values = json.loads(configuration.to_json(paint(supervised.default_config(), steps=1)))
    *parents, last = place
    section = values
    for name in parents:
        section = section[name]
    section[last] = module
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="If you trust the module"):
        job.create_job(workdir.read_config(tmp_path / "config.json"), None)


@pytest.mark.parametrize("wrap", [lambda path: path, lambda path: [{"name": path}]])
def test_import_paths_of_weightings(module, wrap):
    with pytest.raises(InputError, match="If you trust the module"):
        chain.create(wrap(module))


SPEC = NetworkSpec("basic_cnn", {"width": 2, "size": 16}, {"expression": 2}, {"expression": ("a", "b")})


def test_import_paths_in_a_model_folder(tmp_path, module):
    params, stats = functional(SPEC).abstract
    filled = ({k: _ones(v) for k, v in tree.items()} for tree in (params, stats))
    model_folder.save_model(tmp_path / "model", SPEC, *filled, {})
    path = tmp_path / "model" / "model.json"
    description = json.loads(path.read_text())
    description["spec"]["backbone"] = module
    path.write_text(json.dumps(sealed(description)))
    with pytest.raises(InputError, match="If you trust the module"):
        model_folder.load_model(tmp_path / "model")


def _ones(tree):
    return {k: _ones(v) for k, v in tree.items()} if isinstance(tree, dict) else np.ones(tree.shape, tree.dtype)


OUTSIDE = ("../secret.png", "a/../../secret.png", "/secret.png", "..\\secret.png", "./../secret.png")


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_in_a_table_do_not_leave_its_folder(tmp_path, name):
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "x.png")
    (tmp_path / "set" / "labels.csv").write_text(f"path,label\nx.png,b\n{name},a\n")
    with pytest.raises(InputError, match="secret"):
        manifest.load(str(tmp_path / "set"), {})


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_in_an_archive_do_not_leave_it(tmp_path, name):
    before = set(tmp_path.rglob("*"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"inside")
    files = Archive(str(tmp_path / "x.zip"))
    assert [files.read(each) for each in files.names] in ([b"inside"], [])
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "x.zip"}


@pytest.mark.parametrize("name", [*OUTSIDE, "sub/shard"])
def test_paths_in_a_manifest_of_weights_do_not_leave_its_folder(tmp_path, name):
    (tmp_path / "model").mkdir()
    (tmp_path / "secret.png").write_bytes(bytes(4))
    entry = {"name": "x", "shape": [1], "dtype": "float32"}
    path = tmp_path / "model" / "x-weights_manifest.json"
    path.write_text(json.dumps([{"paths": [name], "weights": [entry]}]))
    with pytest.raises(InputError, match="not beside it"):
        read_file(path)


# Names

ESCAPE = "\x1b[2J\x1b]0;title\x07"
HOSTILE = (
    "<img src=x onerror=alert(1)>", '"><script>alert(1)<', "[red]bold[/red][/]", "a\nb", f"a{ESCAPE}b", "it's", "&amp;",
    "=1+1", "%s{0}$(id)`id`", "x" * 251,
)  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found, self.events = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.add(tag)
        self.events |= {name for name, _ in attrs if name.startswith("on")}


def draw(folder: pathlib.Path, name: str, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng([zlib.crc32(name.encode()), i]).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name[: 240 - len(str(i))]}{i}.png")


def usable_as_files(names) -> list[str]:
    return [name.replace("/", "|") for name in names]


def test_hostile_names_of_classes_and_pictures(tmp_path, capfd):
    """Either a class has such a name, in page, log and tables, or the set is refused in one message."""
    names = usable_as_files(HOSTILE)
    for name in names:
        draw(tmp_path / "pictures" / name, name, 6)
    config = paint(supervised.default_config(), steps=1)
    config.devices = 1
    config.data.source, config.data.dir, config.data.options = "image_folder", str(tmp_path / "pictures"), {}
    run = tmp_path / "<b>run"
    command.configure_logging()
    with pytest.raises(SystemExit) as left, command.readable_errors("train"):
        job.train(configuration.locked(config, {}), run)
    printed = capfd.readouterr()
    assert left.value.code == 2 and "\x1b" not in printed.err, printed.err
    for name in names:  # the two that no class may have
        if "\n" in name or "\x1b" in name:
            for picture in (tmp_path / "pictures" / name).iterdir():
                picture.unlink()
            (tmp_path / "pictures" / name).rmdir()
    assert job.train(configuration.locked(config, {}), run)["student"]
    page = Tags((run / "report.html").read_text())
    assert not page.found & {"script", "b"} and not page.events
    assert "onerror" not in " ".join(page.found)
    printed = capfd.readouterr()
    assert "\x1b" not in printed.err + printed.out


@pytest.mark.parametrize("name", ["run[red]", "run*", "what?/run"])
def test_a_workdir_that_is_a_pattern_is_refused(tmp_path, name):
    """Orbax would save checkpoints there without their arrays."""
    with pytest.raises(InputError, match="no folder in the path may have"):
        workdir.check(tmp_path / name, paint(supervised.default_config(), steps=1))


def test_control_characters_of_names_do_not_reach_the_terminal(capsys):
    with pytest.raises(SystemExit), command.readable_errors("predict"):
        raise InputError(f"The file a{ESCAPE}b\r\x9b2J does not exist.\n  Second line.")
    told = capsys.readouterr().err
    assert told == "predict: The file a\\x1b[2J\\x1b]0;title\\x07b\\r\\x9b2J does not exist.\n  Second line.\n"
    record = logging.LogRecord("absl", logging.WARNING, "x", 1, "left out: %s", (f"a{ESCAPE}",), None)
    assert "\x1b" not in command.LogFormatter("%(message)s").format(record)


def test_a_line_break_in_a_name_does_not_make_a_line_that_passes_for_a_message(capsys):
    name = "a\ntrain: all is well\u2028\u202eb"
    with pytest.raises(SystemExit), command.readable_errors("predict"):
        raise InputError(f"The file {name} does not exist.\nRemedy:\n  none")
    told = capsys.readouterr().err.splitlines()
    assert [line[:1] == " " for line in told] == [False, True, True, True]
    assert told[1].endswith("\\u2028\\u202eb does not exist.")
    record = logging.LogRecord("absl", logging.WARNING, "x", 1, "%s: no face\n  in %d", (name, 3), None)
    lines = command.LogFormatter("%(message)s").format(record).split("\n")
    assert lines == ["a\\ntrain: all is well\\u2028\\u202eb: no face", "  in 3"] and record.args == (name, 3)
