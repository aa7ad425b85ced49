"""Files of answers in the place of teachers: the same lessons as the network that gave them; what is refused."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
from cached_jobs import SIZE, make_config, no_training, save_teacher

from emokd import answers
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.data.cache.answers import AnswersFile, view_settings
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.jobs import datasets, job
from emokd.models.answers import AnswersSpec
from emokd.models.network import functional
from emokd.phase import Context
from emokd.recipes import bounded, smkd
from emokd.training.sharding import create_mesh
from emokd.training.streams import Streams
from emokd.weights import model_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("answers")


@pytest.fixture(scope="module")
def teacher(folder):
    return save_teacher(folder / "teacher", 3)


@pytest.fixture(scope="module")
def viewed(folder, teacher):
    """The teacher's answers in every view, written as a user's script would."""
    config = make_config(smkd, {"one": teacher})
    model = model_folder.load_trained(teacher)
    network = functional(model.spec)
    ask = jax.jit(lambda images: network(model.params, model.stats, images)[0])
    path = folder / "viewed.npz"
    with answers.Writer(path, config, classes=list(model.spec.classes["expression"])) as file:
        for seen in answers.pictures(config, SIZE, batch_size=16):
            padded = np.zeros((16, SIZE, SIZE, 3), np.float32)
            padded[: len(seen.names)] = model.spec.preprocessing(seen.images.astype(np.float32) / np.float32(255))
            said = ask(padded)
            rows = len(seen.names)
            file.add(
                seen,
                features=said.features[:rows],
                logits=said.logits[:rows],
                valence_arousal=said.valence_arousal[:rows],
            )
    return path


def with_answers(config, path):
    config = config.copy_and_resolve_references().unlock()
    config.teachers.one = defaults.teacher(answers=str(path))
    return configuration.locked(config, {})


def test_answers_are_those_of_the_picture_and_the_view(viewed):
    """Every answer is looked up by example and view; the arrays are read here by NumPy alone."""
    stored = np.load(viewed)
    config = with_answers(make_config(smkd, {"one": "x"}), viewed)
    made = job.create_job(config, no_training)
    batches = Streams(config, create_mesh(1), made.attach)
    keys = {int(i): key for part in made.splits.values() for i, key in zip(part.ids, part.keys, strict=True)}
    names, views = stored["names"].tolist(), stored["views"].tolist()
    seen = set()
    training = itertools.islice(batches.training(made.splits["train"], (), 0), 6)
    for batch in map(jax.device_get, [*training, *batches.evaluation(made.splits["test"])]):
        for row in np.flatnonzero(batch["mask"]):
            n, v = names.index(keys[int(batch["id"][row])]), views.index(int(batch["view"][row]))
            expected = np.concatenate([stored[k][n, v] for k in ("features", "logits", "valence_arousal")])
            np.testing.assert_array_equal(batch["features/one"][row], expected)
            seen.add(views[v])
    assert seen == {0, 1, -1}


@pytest.mark.parametrize("recipe", [smkd, pytest.param(bounded, marks=pytest.mark.slow)])
def test_a_file_of_answers_teaches_what_its_network_does(teacher, viewed, recipe):
    """The bytes of the pictures are rounded, so the two agree to that."""
    live_config = make_config(recipe, {"one": teacher})
    live = job.create_job(live_config, no_training)
    config = with_answers(live_config, viewed)
    filed = job.create_job(config, no_training)
    assert "one" not in filed.recipe.networks
    params, stats = live.recipe.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    name = "distill"
    outcomes, predictions = [], []
    for made, settings in ((live, live_config), (filed, config)):
        phase = next(p for p in made.recipe.phases if p.name == name)
        streams = Streams(settings, create_mesh(1), made.attach)
        batch = next(streams.training(made.splits["train"], (), 0))
        context = Context(jax.random.key(2))
        outcomes.append(jax.jit(phase.objective)(params, stats, made.recipe.constants, batch, context))
        test = next(streams.evaluation(made.splits["test"]))
        predictions.append(jax.jit(made.recipe.predict)(params, stats, made.recipe.constants, test)["one"])
    losses = [np.asarray(outcome.teacher_losses) for outcome in outcomes]
    assert losses[0].std() > 0
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-2, atol=2e-2 * losses[0].max())
    np.testing.assert_allclose(predictions[1].logits, predictions[0].logits, rtol=2e-2, atol=2e-2)


def test_a_run_with_answers_alone_trains_and_scores_the_teacher(viewed, tmp_path):
    config = with_answers(make_config(bounded, {"one": "x"}, mirror=True), viewed)
    scores = job.train(config, tmp_path, report=False)
    stored, made = np.load(viewed), datasets.load_splits(config)["test"]
    centre = stored["views"].tolist().index(-1)
    rows = [stored["names"].tolist().index(key) for key in made.keys]
    classes = stored["classes"].tolist()
    order = [classes.index(name) for name in made.classes["expression"]]
    guesses = stored["logits"][rows, centre][:, order].argmax(1)
    assert scores["teachers"]["one"]["expression"]["accuracy"] == pytest.approx(
        float((guesses == made.columns["expression"]).mean())
    )
    assert "parameters" not in scores["teachers"]["one"]


def test_outputs_are_the_features_where_there_are_none():
    spec = AnswersSpec(0, {"expression": 3, "valence_arousal": 2}, {"expression": ("a", "b", "c")})
    rows = np.arange(10, dtype=np.float32).reshape(2, 5)
    signals = spec.signals(rows)
    np.testing.assert_array_equal(signals.features, rows)
    np.testing.assert_array_equal(signals.logits, rows[:, :3])
    np.testing.assert_array_equal(signals.valence_arousal, rows[:, 3:])
    assert spec.feature_size == 5
    spec = AnswersSpec(4, {}, {})
    np.testing.assert_array_equal(spec.signals(rows[:, :4]).features, rows[:, :4])
    assert spec.signals(rows[:, :4]).logits is None


ROWS = {"names": np.array(["a", "b"]), "features": np.ones((2, 3), np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": None}, "holds no answers: save at least one"),
        ({"names": None}, "has no array 'names'"),
        ({"names": np.array(["a", "a"])}, "'names': 1 are there more than once: a"),
        ({"names": np.array(["e\u0301", "\u00e9"])}, "more than once"),
        ({"names": np.array([1, 2])}, "Give a list of texts"),
        ({"features": np.ones((3, 3))}, r"'features' has the shape \[3, 3\].*\[2, '...'\]"),
        ({"features": np.array([[1, 2], [np.nan, 1]])}, "'features' is infinite or no number for 1 names: b"),
        ({"logits": np.ones((2, 2))}, "logits but no array 'classes'"),
        ({"logits": np.ones((2, 2)), "classes": np.array(["x", "y", "z"])}, "2 logits but 3 classes"),
        ({"logits": np.eye(2), "classes": np.array(["a", "A"])}, "array 'classes': the classes 'A' and 'a' differ"),
        ({"logits": np.eye(2), "classes": np.array(["a", "a "])}, "array 'classes': the classes 'a' and 'a ' differ"),
        ({"valence_arousal": np.ones((2, 3))}, "valence_arousal has 3 columns"),
        ({"features": np.ones((2, 2, 3)), "views": np.array([0, -1])}, "does not say how they were drawn"),
        ({"names": np.array(["a\\b", "./a/b"])}, r"'a\\\\b' and '\./a/b' are one path"),
        ({"names": np.array([b"caf\xe9", b"a"])}, "'names' is not UTF-8 text"),
        ({"features": np.array([[1, 2], [3, "x"]], dtype=object)}, "'features' is of Python objects"),
        ({"features": np.full((2, 2), 1e300)}, "infinite or no number for 2 names"),
        ({"features": np.ones((2, 2), [("a", "f4"), ("b", "f4")])}, r"'features' has the shape .* and type \["),
        (
            {"features": np.ones((2, 1, 3)), "views": np.array([0]), "settings": np.array("x")},
            "'settings' does not say",
        ),
        (
            {"features": np.ones((2, 1, 3)), "views": np.array([0]), "settings": np.array([1])},
            "'settings' does not say",
        ),
        ({"features": np.ones((2, 2, 3)), "views": np.array([0, 0]), "settings": np.array("{}")}, "different whole"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, changes, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **{k: v for k, v in {**ROWS, **changes}.items() if v is not None})
    with pytest.raises(InputError, match=message) as error:
        AnswersFile(path)
    assert str(path) in str(error.value)


def test_pickled_answers_are_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", names=np.array(["a", "b"], dtype=object), features=np.ones((2, 3)))
    with pytest.raises(InputError, match=r"cannot be read: .*'names' is of Python objects.*np\.array\(list\(names\)"):
        AnswersFile(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", [str, bytes])
def test_names_in_any_spelling_find_their_pictures(tmp_path, kind):
    """Written on Windows, on a Mac, by a shell; and what one such file says of each picture."""
    names = ["sad\\1.png", "./sad/2.png", "cole\u0300re/3.png", " happy//4.png ", "happy/other.png"]
    keys = ["sad/1.png", "sad/2.png", "col\u00e8re/3.png", "happy/4.png"]
    path, values = tmp_path / "a.npz", np.arange(10, dtype=np.float16).reshape(5, 2)
    np.savez(path, names=np.array([n if kind is str else n.encode() for n in names]), features=values)
    pictures = Examples("set", keys, {}, {}, {}, str)
    file = AnswersFile(path)
    file.check("one", [pictures], make_config(smkd, {}).data)
    batch = {"id": pictures.ids, "check": pictures.checks, "mask": np.ones(4, bool), "view": np.zeros(4, np.int32)}
    np.testing.assert_array_equal(file.lookup(batch), values[:4])
    with pytest.raises(InputError, match="no answer for 1 of 1 pictures"):
        file.check("one", [dataclasses.replace(pictures, keys=["sad/9.png"])], make_config(smkd, {}).data)


def test_answers_that_are_likely_something_else_are_told(tmp_path, caplog):
    arrays = {"names": np.array(["a", "b"]), "classes": np.array(["x", "y"])}
    pictures = Examples("set", ["a", "b"], {}, {}, {}, str)
    for logits, affect, told in (
        (np.array([[0.1, 0.9], [1.0, 0.0]]), np.full((2, 2), 9.0), True),
        (np.array([[-0.1, 0.9], [1.0, 0.1]]), np.full((2, 2), -1.1), False),
    ):
        caplog.clear()
        np.savez(tmp_path / "a.npz", **arrays, logits=logits, valence_arousal=affect)
        AnswersFile(tmp_path / "a.npz").check("one", [pictures], make_config(smkd, {}).data)
        assert ("as probabilities do. Save their logarithms" in caplog.text) == told
        assert ("reaches 9, but the data's are from -1 to 1" in caplog.text) == told


@pytest.mark.parametrize(("lowest", "told"), [(-2.0, True), (-1.9, False)])
def test_the_mark_of_missing_affect_is_told(tmp_path, lowest, told):
    affect = np.array([[lowest, -1.0], [0.5, 0.5]])
    np.savez(tmp_path / "a.npz", names=np.array(["a", "b"]), valence_arousal=affect)
    assert any("leave out the names without an answer" in d for d in AnswersFile(tmp_path / "a.npz")._doubts) == told


def test_arrays_that_are_not_read_are_told(tmp_path):
    arrays = {"names": np.array(["a", "b"]), "valence_arousal": np.eye(2)}
    np.savez(tmp_path / "a.npz", **arrays, feature=np.eye(2), arousal_valence=np.eye(2))
    (doubt,) = AnswersFile(tmp_path / "a.npz")._doubts
    assert "not read: 'feature'. Did you mean 'features'? 'arousal_valence'." in doubt
    np.savez(tmp_path / "a.npz", **arrays)
    assert not AnswersFile(tmp_path / "a.npz")._doubts


def test_a_writer_refuses_early(tmp_path):
    """What it is given may have taken hours."""
    config = make_config(smkd, {})
    for path in (tmp_path / "nowhere" / "x.npz", tmp_path):
        with pytest.raises(InputError, match="give a file in a folder that exists"):
            answers.Writer(path, config)
    seen = answers.Seen(["a", "b"], 0, np.zeros((2, 4, 4, 3), np.uint8))
    for outputs, message in (
        ({"features": np.ones((2, 4))}, r"widths \{'features': 4\} after \{'features': 3\}"),
        ({"logits": np.ones((2, 3))}, "give the same each time"),
        ({"features": np.array([[1, 1, 1], [1, np.nan, 1]])}, r"answers for b \(view 0\) are infinite"),
    ):
        file = answers.Writer(tmp_path / "x.npz", config)
        file.add(seen, features=np.ones((2, 3)))
        with pytest.raises(InputError, match=message):
            file.add(seen, **outputs)


def make_file(path, keys, data, **changes):
    rng = np.random.default_rng(0)
    views = [0, 1, -1]
    arrays = {
        "names": np.array(keys),
        "features": rng.normal(size=(len(keys), 3, 4)),
        "views": np.array(views),
        "settings": np.array(view_settings(data)),
    } | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize(
    ("changes", "keys", "message"),
    [
        ({"data.views": 0}, slice(None), "Set --config.data.views=2"),
        ({"data.views": 3}, slice(None), "lacks the views 2 of 0 to 2"),
        ({"data.augment.flip": 0.1}, slice(None), "drawn otherwise: augment"),
        ({"data.canvas": 20}, slice(None), "drawn otherwise: canvas"),
        ({}, slice(3, None), "has no answer for 3 of 44 pictures of painted_faces"),
        ({"teachers.one.checkpoint": "x"}, slice(None), "is given beside .checkpoint"),
        ({"teachers.one.tuning": "full"}, slice(None), "cannot learn"),
        ({"teachers.one.answers": "nowhere.npz"}, slice(None), "config.teachers.one.answers: there is no nowhere.npz"),
    ],
)
def test_answers_that_do_not_fit_the_run_are_refused(tmp_path, changes, keys, message):
    config = with_answers(make_config(smkd, {"one": "x"}), tmp_path / "a.npz")
    every = [key for part in datasets.load_splits(config).values() for key in part.keys]
    make_file(tmp_path / "a.npz", every[keys], config.data)
    with pytest.raises(InputError, match=message):
        job.create_job(configuration.locked(config, changes), no_training)


def test_two_sets_with_pictures_of_one_name_are_refused(tmp_path):
    config = with_answers(make_config(smkd, {"one": "x"}), tmp_path / "a.npz")
    test = datasets.load_splits(config)["test"]
    make_file(tmp_path / "a.npz", test.keys, config.data)
    file = AnswersFile(tmp_path / "a.npz")
    file.check("one", [test, test], config.data)
    with pytest.raises(InputError, match="other have 11 pictures of the same names"):
        file.check("one", [test, dataclasses.replace(test, name="other")], config.data)


def test_one_answer_for_all_views_is_said(tmp_path, caplog):
    config = with_answers(make_config(smkd, {"one": "x"}, **{"data.views": 0}), tmp_path / "a.npz")
    every = [key for part in datasets.load_splits(config).values() for key in part.keys]
    make_file(tmp_path / "a.npz", every, config.data, features=np.ones((44, 4)), views=None, settings=None)
    with caplog.at_level("WARNING", "absl"):
        job.create_job(config, no_training)
    assert "one answer for each picture stands for all of its views" in caplog.text


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    config = make_config(smkd, {})
    seen = answers.Seen(["a", "b"], 0, np.zeros((2, 4, 4, 3), np.uint8))
    with pytest.raises(RuntimeError), answers.Writer(tmp_path / "x.npz", config) as file:
        file.add(seen, features=np.ones((2, 3)))
        raise RuntimeError
    with (
        pytest.raises(InputError, match="1 answers are missing, such as view -1 of b"),
        answers.Writer(tmp_path / "x.npz", config) as file,
    ):
        file.add(seen, features=np.ones((2, 3)))
        file.add(answers.Seen(["a"], -1, np.zeros((1, 4, 4, 3), np.uint8)), features=np.ones((1, 3)))
    with (
        pytest.raises(InputError, match="one row for each picture"),
        answers.Writer(tmp_path / "x.npz", config) as file,
    ):
        file.add(seen, features=np.ones((3, 3)))
    assert list(tmp_path.iterdir()) == []
    assert json.loads(view_settings(config.data))["canvas"] == SIZE


@pytest.mark.parametrize("far", [0, 1, 2])
def test_answers_that_float32_rounds_away_are_said_and_refused_where_they_are_most(tmp_path, far):
    """Columns of unit deviation around a clock's seconds since 1970; of a constant one nothing can be lost."""
    values = np.random.default_rng(0).standard_normal((50, 4))
    values[:, :far] += 1.7e9
    values[:, 3] = 0.1
    np.savez(tmp_path / "a.npz", names=np.array([f"{i}.png" for i in range(50)]), features=values)
    if far == 2:
        with pytest.raises(InputError, match=r"2 of 4 columns of 'features' .* 0, 1 \(from 0\)\. Subtract each column"):
            AnswersFile(tmp_path / "a.npz")
    else:
        doubts = AnswersFile(tmp_path / "a.npz")._doubts
        assert len(doubts) == far and all("1 of 4 columns of 'features'" in text for text in doubts)
