"""Observations: stored and read back, sorted by label, projected as NumPy's eigenvectors say, drawn and reported."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from emokd.errors import InputError
from emokd.reporting import figures, observations
from emokd.reporting.metrics_log import MetricsLog
from emokd.reporting.report import write_report

CLASSES = ("calm", "glad", "sad")
NAN = np.nan


def make_arrays(rows=9, *, aligned=True, seed=0):
    """Two modalities and the joint teacher, which knows best; "skin" lacks the third example."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=(rows, 5)) for name in ("student", "teacher/joint", "teacher/eye", "teacher/skin")}
    if aligned:
        arrays |= {f"before/{name}": rng.normal(size=(rows, 4)) for name in ("eye", "skin")}
    for name in [name for name in arrays if name.endswith("/skin")]:
        arrays[name][2] = NAN
    arrays |= {"error/joint": np.full(rows, 0.1), "error/eye": np.full(rows, 0.5)}
    return {**arrays, "expression": np.arange(rows, dtype=np.int32)[::-1] % 3}


def unit(rows):
    return np.array([row / np.sqrt(sum(x * x for x in row)) if any(row) else row for row in rows])


def captured(monkeypatch, name):
    """What the figure `name` is asked to draw."""
    calls = []
    original = getattr(figures, name)

    def draw(*arguments):
        calls.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(figures, name, draw)
    return calls


def test_what_is_written_is_read_in_the_order_of_steps(tmp_path):
    arrays = make_arrays()
    for phase, step in (("student", 900), ("teach", 20), ("student", 1000), ("fine-tune", 30)):
        observations.write(tmp_path, phase, step, {**arrays, "student": arrays["student"] * step}, CLASSES)
    path = observations.write(tmp_path, "teach", 20, arrays, CLASSES)
    assert path == tmp_path / "observations" / "teach-00000020.npz"
    found = observations.read(tmp_path)
    assert [(o.phase, o.step) for o in found] == [("teach", 20), ("fine-tune", 30), ("student", 900), ("student", 1000)]
    assert found[0].classes == CLASSES
    assert found[0].arrays.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[0].arrays[name], values)  # the later of the two that were written
    assert set(found[0].named("teacher")) == {"joint", "eye", "skin"}


def test_a_damaged_observation_is_named(tmp_path):
    path = observations.write(tmp_path, "teach", 20, make_arrays(), CLASSES)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"teach-00000020.npz is no observation of a run.*Remove it"):
        observations.read(tmp_path)


def test_any_damage_to_an_observation_is_one_message_or_none(tmp_path):
    path = observations.write(tmp_path, "teach", 20, make_arrays(), CLASSES)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            content[place] = rng.integers(0, 256)
        path.write_bytes(content)
        with contextlib.suppress(InputError):
            observations.read(tmp_path)


def test_labels_are_classes_majorities_or_valence():
    def labels(**arrays):
        return observations.Observation("p", 0, {n: np.array(v) for n, v in arrays.items()}, CLASSES).labels

    np.testing.assert_array_equal(labels(expression=[2, -1, 0]), [2, NAN, 0])
    np.testing.assert_array_equal(labels(votes=[[0.25, 0.75], [0, 0]], valence_arousal=[[0, 0], [0, 0]]), [1, NAN])
    np.testing.assert_array_equal(labels(valence_arousal=[[0.5, -1], [NAN, NAN]]), [0.5, NAN])


def test_the_order_is_by_label_stable_and_the_unlabelled_are_last():
    assert observations.by_label(np.array([1, NAN, 0, 1, NAN, 0.0])).tolist() == [2, 5, 0, 3, 1, 4]


def test_similarities_are_cosines():
    features = np.array([[3.0, 4.0], [-6.0, -8.0], [4.0, -3.0], [0.0, 0.0], [1.0, 0.0]])
    expected = [[1, -1, 0, 0, 0.6], [-1, 1, 0, 0, -0.6], [0, 0, 1, 0, 0.8], [0] * 5, [0.6, -0.6, 0.8, 0, 1]]
    np.testing.assert_allclose(observations.similarities(features), expected, atol=1e-12)


def test_the_best_teacher_has_the_least_mean_error_where_it_is_known():
    arrays = {"error/a": np.array([NAN, 1.0]), "error/b": np.array([0.5, 0.9]), "error/c": np.array([NAN, NAN])}
    assert observations.Observation("p", 0, arrays, ()).best_teacher == "b"
    assert observations.Observation("p", 0, {"error/c": np.array([NAN])}, ()).best_teacher is None


def test_points_are_the_principal_components_of_all_rows_at_length_one():
    rng = np.random.default_rng(3)
    sets = {"a": rng.normal(size=(20, 6)) * [4, 2, 1, 1, 1, 1] + 1, "b": rng.normal(size=(15, 6)) * 5}
    sets["b"][4] = NAN
    points = observations.project(sets)
    rows = unit(np.concatenate([sets["a"], np.delete(sets["b"], 4, axis=0)]))
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), [0, 1]])
    expected = (rows - rows.mean(0)) @ axes
    np.testing.assert_allclose(points["a"], expected[:20], atol=1e-10)
    np.testing.assert_allclose(np.delete(points["b"], 4, axis=0), expected[20:], atol=1e-10)
    assert np.isnan(points["b"][4]).all()
    found = np.concatenate([points["a"], np.delete(points["b"], 4, axis=0)])
    np.testing.assert_allclose(found.var(0, ddof=1), values[::-1][:2])
    # A factor on a row changes nothing.
    np.testing.assert_allclose(observations.project({**sets, "a": sets["a"] * 7})["a"], points["a"], atol=1e-10)


def test_too_few_dimensions_or_rows_are_drawn_flat():
    one = observations.project({"a": np.array([[2.0], [-3.0], [1.0]])})["a"]
    np.testing.assert_allclose(one, [[2 / 3, 0], [-4 / 3, 0], [2 / 3, 0]])
    np.testing.assert_allclose(observations.project({"a": np.ones((1, 4))})["a"], [[0, 0]], atol=1e-12)
    assert np.isnan(observations.project({"a": np.full((2, 3), NAN)})["a"]).all()


def test_similarity_shows_the_last_phase_first_middle_and_last_in_the_order_of_labels(tmp_path, monkeypatch):
    for phase, step in (("align", 50), ("student", 50), ("student", 60), ("student", 70), ("student", 80)):
        observations.write(tmp_path, phase, step, make_arrays(seed=step), CLASSES)
    calls = captured(monkeypatch, "similarity")
    picture = observations.draw_similarity(observations.read(tmp_path))
    (columns, classes), *_ = calls
    assert [column.titles[0] for column in columns] == [f"step {step}: teacher joint" for step in (50, 60, 80)]
    assert classes == CLASSES
    order = [2, 5, 8, 1, 4, 7, 0, 3, 6]  # labels are 2, 1, 0, 2, 1, 0, ...
    for column, step in zip(columns, (50, 60, 80), strict=True):
        arrays = make_arrays(seed=step)
        for name, matrix in zip(("teacher/joint", "student"), column.matrices, strict=True):
            rows = unit(arrays[name])[order]
            np.testing.assert_allclose(matrix, np.einsum("id,jd->ij", rows, rows), atol=1e-12)
        assert column.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert Image.open(io.BytesIO(picture)).format == "PNG"


def test_examples_that_the_best_teacher_cannot_see_are_left_out(monkeypatch):
    arrays = {**make_arrays(), "error/skin": np.full(9, 0.01)}
    calls = captured(monkeypatch, "similarity")
    observations.draw_similarity([observations.Observation("student", 5, arrays, CLASSES)])
    ((column,), _), *_ = calls
    assert column.matrices[0].shape == column.matrices[1].shape == (8, 8)
    assert np.isfinite(column.matrices[0]).all()
    assert column.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2]  # example 2, of class 0, is missing


def test_representations_show_both_sides_of_the_alignment(monkeypatch):
    calls = captured(monkeypatch, "representations")
    arrays = make_arrays()
    observations.draw_representations(observations.Observation("student", 5, arrays, CLASSES))
    ((panels, labels, classes), *_) = calls
    # The joint features have another width than the tokens here, so they have a panel to themselves.
    assert [(title, set(sets)) for title, sets in panels] == [
        ("before alignment", {"joint"}),
        ("before alignment", {"eye", "skin"}),
        ("after alignment", {"joint", "eye", "skin"}),
    ]
    assert labels.tolist() == [2, 1, 0] * 3 and classes == CLASSES
    together = observations.project({n: arrays[f"teacher/{n}"] for n in ("joint", "eye", "skin")})
    np.testing.assert_array_equal(panels[-1][1]["skin"], together["skin"])

    unaligned = observations.Observation("student", 5, make_arrays(aligned=False), CLASSES)
    observations.draw_representations(unaligned)
    assert [(title, set(sets)) for title, sets in calls[1][0]] == [("teachers", {"joint", "eye", "skin"})]


def test_classes_have_colours_of_their_own_and_values_a_scale():
    of_classes, _ = figures.label_colours(np.array([0, 1, 2, 0, NAN]), CLASSES)
    assert len(np.unique(of_classes, axis=0)) == 4
    np.testing.assert_array_equal(of_classes[0], of_classes[3])
    assert len(np.unique(figures.label_colours(np.arange(16.0), [str(i) for i in range(16)])[0], axis=0)) == 16
    of_values, _ = figures.label_colours(np.array([-1, -0.5, 0, 0.5, 1, NAN]), ())
    redness = of_values[:5, 0] - of_values[:5, 2]
    assert (np.diff(redness) > 0).all()
    assert len(set(of_values[5, :3])) == 1


def test_a_run_without_observations_has_no_pictures_and_no_section(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, "teach", {"loss": 1.0})
    assert observations.write_pictures(tmp_path) == []
    assert "Representations" not in write_report(tmp_path).read_text()
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("targets", ["expression", "unlabelled", "valence_arousal"])
def test_the_report_writes_the_pictures_and_shows_them(tmp_path, targets):
    arrays = make_arrays()
    classes = CLASSES
    if targets == "unlabelled":
        arrays["expression"][:2] = -1
    if targets == "valence_arousal":
        classes = ()
        del arrays["expression"]
        arrays[targets] = np.random.default_rng(0).uniform(-1, 1, (9, 2))
        arrays[targets][0] = NAN
    with MetricsLog(tmp_path) as log:
        log.write(1, "student", {"loss": 1.0})
    observations.write(tmp_path, "student", 1, arrays, classes)
    text = write_report(tmp_path).read_text()
    assert text.count("data:image/png;base64,") == 2 and ">Representations</h2>" in text
    for name in (observations.SIMILARITY, observations.REPRESENTATIONS):
        pixels = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_combined_set_with_painted_faces_is_called_synthetic(tmp_path):
    sources = '[{"source": "ferplus"}, {"source": "painter"}]'
    config = '{"data": {"source": "combined", "options": {"sources": %s}}}'
    (tmp_path / "config.json").write_text(config % sources)
    assert "These numbers show" in write_report(tmp_path).read_text()
    (tmp_path / "config.json").write_text(config % '[{"source": "ferplus"}]')
    assert "These numbers show" not in write_report(tmp_path).read_text()
