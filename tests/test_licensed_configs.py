"""Configurations whose data must be asked for, or whose students take long: small variants end to end, others built."""

import pathlib
import sys
import wave

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks"))


from lazily import Lazily

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.data.decode import to_canvas
from emokd.data.tables.classes import AFFECTNET
from emokd.jobs import datasets, job, scoring
from emokd.models.network import NetworkSpec, TrainedModel, functional
from emokd.models.preprocessing import Preprocessing
from emokd.phase import Context, label_parameters
from emokd.recipes.common.task import Task
from emokd.weights import model_folder

torch = Lazily("torch")
torch_emonet = Lazily("torch_emonet")


def save_picture(path, rng, size=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(path)


def make_biovid(root, rng):
    """Ten subjects with a clip of each class: four frames, five and a half seconds of physiology."""
    lines = []
    times = np.arange(2816) / 512
    for subject in range(10):
        for level, label in (("BL1", 0), ("PA4", 1)):
            clip = f"{71000 + subject:06d}_w_2{subject}-{level}-081"
            for frame in range(1, 5):
                save_picture(root / "faces" / level / clip / f"img_{frame:05d}.jpg", rng)
            columns = [times, *rng.normal(size=(5, len(times)))]
            header = "time\tgsr\tecg\temg_trapezius\temg_corrugator\temg_zygomaticus"
            path = root / "physio" / level / f"{clip}_bio.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(path, np.stack(columns, 1), fmt="%.6f", delimiter="\t", header=header, comments="")
            lines.append(f"{level}/{clip} 1 4 {label}\n")
    (root / "annotations.txt").write_text("".join(lines))


def make_affwild2(root, rng):
    """Eight recordings of two seconds: twenty-four labelled frames and a sound each."""
    for split, videos in (("Train_Set", range(6)), ("Validation_Set", range(6, 8))):
        for video in videos:
            labels = root / "annotations" / "VA_Estimation_Challenge" / split / f"video{video}.txt"
            labels.parent.mkdir(parents=True, exist_ok=True)
            values = rng.uniform(-1, 1, (24, 2))
            labels.write_text("valence,arousal\n" + "".join(f"{v:.3f},{a:.3f}\n" for v, a in values))
            for frame in range(1, 25):
                save_picture(root / "cropped_aligned" / f"video{video}" / f"{frame:05d}.jpg", rng)
            path = root / "audio" / f"video{video}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(16000)
                sound.writeframes(rng.integers(-3000, 3000, 32000).astype("<i2").tobytes())


def make_affectnet(root, rng):
    """Forty rows to train on and sixteen to score, two in three kept by EmoNet's rules."""
    header = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
    landmarks = ";".join(f"{x:.1f};{y:.1f}" for x, y in rng.uniform(6, 26, (68, 2)))
    for table, count in (("training", 40), ("validation", 16)):
        lines = [header]
        for i in range(count):
            name = f"{i % 3}/{table}{i}.jpg"
            save_picture(root / "Manually_Annotated_Images" / name, rng)
            expression, valence, arousal = ((1, 0.6, 0.3), (2, -0.5, -0.2), (0, 0.9, 0.0))[i % 3]
            lines.append(f"{name},4,4,24,24,{landmarks},{expression},{valence},{arousal}")
        (root / f"{table}.csv").write_text("\n".join(lines) + "\n")


def save_teacher(folder, classes):
    """A small network of all eight expressions, valence and arousal in the place of EmoNet."""
    spec = NetworkSpec(
        "basic_cnn", {"width": 2}, {"expression": 8, "valence_arousal": 2}, {"expression": classes}, Preprocessing(32)
    )
    params, stats = functional(spec).init(jax.random.key(0))
    model_folder.save_model(folder, spec, params, stats, {"source": "test"})
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["affectnet", "biovid", "affwild2"])
def test_the_small_variant_runs_on_a_generated_tree(name, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    make = {"affectnet": make_affectnet, "biovid": make_biovid, "affwild2": make_affwild2}[name]
    make(tmp_path / name, rng)
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path))
    changes = {}
    if name == "affectnet":
        classes = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
        changes["teachers.emonet.checkpoint"] = save_teacher(tmp_path / "teacher", classes)
        changes["teachers.emonet.size"] = 32
    config = configuration.locked(
        configuration.load(f"configs/{'bounded' if name == 'affectnet' else 'mtpkdot'}/{name}.py:small"), changes
    )
    scores = job.train(config, tmp_path / "run")
    target = "valence_arousal" if name == "affwild2" else "expression"
    assert np.isfinite(next(v for v in scores["student"][target].values() if isinstance(v, float)))
    assert scores["examples"] > 0 and scores["teachers"]
    again = scoring.evaluate_student(tmp_path / "run", "test")
    for key, value in scores["student"][target].items():
        if isinstance(value, float):
            assert again[target][key] == pytest.approx(value, abs=1e-4)


def emonet_says(network, pictures):
    """Logits, and valence and arousal averaged with the mirrored faces, of PyTorch's EmoNet."""
    pixels = torch.from_numpy(np.stack([to_canvas(picture, 64) for picture in pictures])).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        straight, mirrored = network(pixels), network(pixels.flip(3))
    affect = [(straight[name] + mirrored[name]).numpy() / 2 for name in ("valence", "arousal")]
    return straight["expression"].numpy().astype(np.float64), np.stack(affect, 1)


@pytest.mark.slow
def test_an_emonet_file_teaches_affectnet(tmp_path, monkeypatch):
    """With random weights in the authors' names; its scores are those of PyTorch's network on the test split."""
    torch.manual_seed(0)
    network = torch_emonet.EmoNet(8).eval()
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, tmp_path / "emonet_8.pth")
    make_affectnet(tmp_path / "affectnet", np.random.default_rng(0))
    monkeypatch.setenv("EMOKD_DATA", str(tmp_path))
    changes = {"teachers.emonet.checkpoint": str(tmp_path / "emonet_8.pth"), "devices": 1}
    config = configuration.locked(configuration.load("configs/bounded/affectnet.py:small"), changes)
    scores = job.train(config, tmp_path / "run", report=False)
    assert (scores["teachers"]["emonet"]["backbone"], scores["teachers"]["emonet"]["size"]) == ("emonet", 64)
    assert np.isfinite(scores["student"]["expression"]["nll"])

    test = datasets.load_splits(config)["test"]
    logits, affect = emonet_says(network, [test.inputs["image"](i) for i in range(len(test))])
    labels, target = test.columns["expression"], test.columns["valence_arousal"].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = scores["teachers"]["emonet"]
    assert found["expression"]["count"] == len(labels) > 4
    nll = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert found["expression"]["nll"] == pytest.approx(nll, rel=1e-3)
    for column, name in enumerate(("valence", "arousal")):
        error = np.sqrt(((np.clip(affect[:, column], -1, 1) - target[:, column]) ** 2).mean())
        assert found["valence_arousal"][name]["rmse"] == pytest.approx(error, rel=1e-3)


def weightless(spec):
    """A model whose arrays are zeros that take no memory, as if read from a file."""
    params, stats = (
        jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), tree)
        for tree in functional(spec).abstract
    )
    return TrainedModel(spec, params, stats, origin="zeros")


def teacher_of(config):
    """The one teacher of a configuration, without its weights."""
    ((name, section),) = config.teachers.items()
    if section.train:
        taught = configuration.load(section.train)
        task = task_of(taught.batch_size, taught.data.source)
        return {name: weightless(recipes.find(taught.recipe).build(taught, task, {}).student_spec)}
    heads, pixels = {"expression": 8, "valence_arousal": 2}, Preprocessing(section.size, (0.0,) * 3, (1.0,) * 3)
    return {name: weightless(NetworkSpec(section.backbone, {}, heads, {"expression": AFFECTNET}, pixels))}


def task_of(batch_size, source):
    classes = {"expression": AFFECTNET if source == "affectnet" else AFFECTNET[:7]}
    return Task(classes, ("expression", "valence_arousal"), {"labelled": 1000, "all": 1000}, batch_size)


def batch_of(config):
    """The shapes of a batch of faces."""
    shape = jax.ShapeDtypeStruct
    rows, canvas = config.batch_size, config.data.canvas
    return {
        "image": shape((rows, canvas, canvas, 3), jnp.uint8),
        "expression": shape((rows,), jnp.int32),
        "valence_arousal": shape((rows, 2), jnp.float32),
        **{name: shape((rows,), jnp.uint32) for name in ("id", "check")},
        "view": shape((rows,), jnp.int32),
        "mask": shape((rows,), bool),
    }


@pytest.mark.parametrize(
    ("file", "arg", "backbone"),
    [
        ("diffusionfer", "efficientformer", "efficientformer_l1"),
        pytest.param("affectnet", "", "mobilenet_v2", marks=pytest.mark.slow),
        pytest.param("affectnet", "efficientformer_l1", "efficientformer_l1", marks=pytest.mark.slow),
        pytest.param("affectnet", "efficientformer_l3", "efficientformer_l3", marks=pytest.mark.slow),
        pytest.param("affectnet", "efficientformer_l7", "efficientformer_l7", marks=pytest.mark.slow),
    ],
)
def test_a_full_variant_builds_and_its_losses_have_their_shapes(file, arg, backbone):
    """Without data and without a single array of weights: everything is traced, nothing is computed."""
    config = configuration.load(f"configs/bounded/{file}.py" + (f":{arg}" if arg else ""))
    task, rows = task_of(config.batch_size, config.data.source), config.batch_size
    models = teacher_of(config)
    if config.student.init:
        models["student"] = weightless(
            NetworkSpec(backbone, config.student.options.to_dict(), heads={"pretrained": 1000})
        )
    recipe = recipes.find(config.recipe).build(config, task, models)
    spec = recipe.student_spec
    assert (spec.backbone, spec.preprocessing.size) == (backbone, 224)
    assert spec.heads == {"expression": len(task.classes["expression"]), "valence_arousal": 2}
    (phase,) = recipe.phases
    assert phase.name == "distill"

    params, stats = jax.eval_shape(recipe.init, jax.random.key(0))
    assert set(jax.tree.leaves(label_parameters(params, recipe.groups))) == set(phase.learns)
    outcome = jax.eval_shape(
        phase.objective, params, stats, recipe.constants, batch_of(config), Context(jax.random.key(0))
    )
    assert {name: term.values.shape for name, term in outcome.terms.items()} == {
        "expression": (rows,),
        "valence_arousal": (rows,),
    }
    assert outcome.teacher_losses.shape == (rows, 1)
    assert jax.tree.map(jnp.shape, outcome.stats) == jax.tree.map(jnp.shape, stats)
