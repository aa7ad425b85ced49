"""Configurations whose data must be asked for: their small variants, end to end, on generated trees in the layout."""

import wave

import jax
import numpy as np
import pytest
from PIL import Image

from emokd import config as configuration
from emokd import job
from emokd.models.network import NetworkSpec, functional
from emokd.models.preprocessing import Preprocessing
from emokd.weights import model_folder


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
    again = job.evaluate_student(tmp_path / "run", "test")
    for key, value in scores["student"][target].items():
        if isinstance(value, float):
            assert again[target][key] == pytest.approx(value, abs=1e-4)
