"""A table's units change nothing: whole runs on copies of a table that differ in them."""

import numpy as np
import pytest

from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data import reference
from emokd.jobs import datasets, job, scoring
from emokd.recipes import mtpkdot
from emokd.weights import model_folder

ROWS, COLUMNS = 160, 25
POWERS = np.arange(-12, 13)


def make_values():
    """The last column tells the class, as 0.2 in a column of deviation 0.1; the others are noise of deviation 1."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, ROWS)
    values = rng.standard_normal((ROWS, COLUMNS))
    values[:, -1] = np.where(labels == 1, 0.1, -0.1) + 0.02 * rng.standard_normal(ROWS)
    return labels, values


COPIES = {
    "plain": lambda values: values,
    "units": lambda values: values * 10.0**POWERS,
    "reversed": lambda values: values * 10.0 ** POWERS[::-1],
    "shifted": lambda values: (values + 1e6 * values.std(0)) * 10.0 ** POWERS[::-1],
}


def make_config(folder, **changes):
    config = mtpkdot.default_config()
    config.batch_size = 32
    config.data.source, config.data.dir = "feature_tables", str(folder)
    config.data.options = {"tables": {"eye": "eye.csv"}}
    config.modalities.eye = defaults.modality("features/eye", "mlp", widths=(8,))
    config.width = 8
    for name in ("teach", "joint", "hallucinate", "align"):
        config.phases[name].enabled = False
    config.phases.student = defaults.phase(steps=60, learning_rate=2e-2)
    config.evaluation = defaults.every(steps=60)
    return configuration.locked(config, changes)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdir and scores of a run on each copy."""
    root, (labels, values), shared, found = tmp_path_factory.mktemp("units"), make_values(), {}, {}
    for name, change in COPIES.items():
        folder = root / name
        folder.mkdir()
        rows = "\n".join(f"r{i},{'yes' if label else 'no'}" for i, label in enumerate(labels))
        (folder / "labels.csv").write_text(f"id,label\n{rows}\n")
        header = ",".join(["id", *(f"c{k}" for k in range(COLUMNS))])
        cells = "\n".join(f"r{i}," + ",".join(map(repr, row)) for i, row in enumerate(change(values).tolist()))
        (folder / "eye.csv").write_text(f"{header}\n{cells}\n")
        workdir = root / f"run_{name}"
        found[name] = workdir, job.train(make_config(folder), workdir, report=False, shared=shared)
    assert len(shared) == 1  # nor does another centre compile anything again
    return found


def standardised(workdir):
    """What the network's backbone sees of the training split, and the student's standardiser."""
    config = configuration.from_json((workdir / "config.json").read_text())
    work = job.create_job(config, train_teacher=None)
    train = work.splits["train"]
    table = np.stack([train.inputs["features/eye"](i) for i in range(len(train))]).astype(np.float64)
    own = model_folder.load_trained(workdir / "student").stats["encoders"]["eye"]["standardizer"]
    return (table - own["mean"]) / own["std"], train


@pytest.mark.parametrize("name", COPIES)
def test_a_columns_unit_and_offset_change_neither_accuracy_nor_standardised_values(runs, name):
    workdir, scores = runs[name]
    accuracy = scores["student"]["expression"]["accuracy"]
    assert accuracy == runs["plain"][1]["student"]["expression"]["accuracy"] > 0.9
    found, train = standardised(workdir)
    _, values = make_values()
    exact = values[[int(key[1:]) for key in train.keys]]
    np.testing.assert_allclose(found, (exact - exact.mean(0)) / exact.std(0), atol=1e-3)


def test_a_student_is_evaluated_and_continued_by_the_reference_that_it_was_trained_with(runs):
    workdir, scores = runs["shifted"]
    assert scoring.evaluate_student(workdir, "test")["expression"] == scores["student"]["expression"]
    folder = configuration.from_json((workdir / "config.json").read_text()).data.dir
    # Another training split has another reference, but what has been learnt already holds for the first run's.
    config = make_config(folder, **{"data.split.seed": 3})
    stored = model_folder.provenance(workdir / "student")["references"]
    assert model_folder.provenance(workdir / "student")["columns"] == {
        "features/eye": [f"c{k}" for k in range(COLUMNS)]
    }
    fresh, _ = datasets.refer(config, datasets.load_splits(config), None, None)
    assert reference.to_json(fresh["train"]) != stored
    continued, _ = datasets.refer(config, datasets.load_splits(config), None, workdir)
    assert all(reference.to_json(part) == stored for part in continued.values())
