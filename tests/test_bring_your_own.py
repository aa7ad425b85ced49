"""The examples of docs/bring_your_own.md, as they stand there; and that folders import nothing by themselves."""

import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emokd import imports, recipes
from emokd.configuration import config as configuration
from emokd.data import sources
from emokd.errors import InputError
from emokd.jobs import job
from emokd.models.registry import create_backbone
from emokd.phase import Context
from emokd.recipes.common.task import choose
from emokd.weighting import chain
from emokd.weighting.transform import initial

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "bring_your_own.md").read_text()
FILES = {
    name: text
    for name, text in re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
}  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder with the page's files and data for them, where its modules are found."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 255, (40, 32, 32, 3), np.uint8), np.arange(40) % 2
    np.savez(folder / "faces.npz", pictures=pictures, labels=labels)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is trusted yet."""
    monkeypatch.setattr(imports, "_trusted", set())


def test_every_kind_has_an_example():
    assert sorted(FILES) == [
        "experiment.py",
        *(f"mine/{n}.py" for n in ("losses", "networks", "pictures", "recipes", "weightings")),
    ]
    assert all(text.count("\n") <= 60 for text in FILES.values())


@pytest.mark.parametrize("argument", ["", ":recipe"])
def test_the_experiment_makes_its_job(page, fresh, argument):
    """Every phase's objective is traced; none is compiled."""
    config = configuration.load(f"{page}/experiment.py{argument}")
    config = configuration.locked(config, {"data.dir": str(page), "devices": 1})
    made = job.create_job(config, train_teacher=None)
    assert made.splits["train"].name == "mine" and made.recipe.student_spec.backbone == "mine.networks:Patches"
    names = ["train"] if argument else ["teach", "probe", "distill", "classify", "finetune"]
    assert [phase.name for phase in made.recipe.phases] == names
    params, stats = jax.eval_shape(made.recipe.init, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.uint8), "mask": jax.ShapeDtypeStruct((8,), bool),
        **{name: jax.ShapeDtypeStruct((8,), jnp.uint32) for name in ("id", "view")},
        "expression": jax.ShapeDtypeStruct((8,), jnp.int32),
    }  # fmt: skip
    for phase in made.recipe.phases:
        context = Context(jax.random.key(0))
        outcome = jax.eval_shape(phase.objective, params, stats, made.recipe.constants, batch, context)
        values = [term.values for term in outcome.terms.values()]
        assert all(value.shape == (8,) for value in values)
        taught = outcome.teacher_losses
        assert taught is None or (phase.name, taught.shape) == ("distill", (8, 2))


def test_what_they_compute(page, fresh):
    imports.trust(["mine.losses:absolute", "mine.weightings:certain", "mine.networks:Patches"])
    ours = {"mse": lambda student, teacher: None}
    student, teacher = np.float32([[1, 2], [0, 0]]), np.float32([[2, 4], [0, 1]])
    np.testing.assert_allclose(choose(ours, "mine.losses:absolute", "config.distance")(student, teacher), [1.5, 0.5])
    weighting = chain.create([{"name": "mine.weightings:certain", "power": 2.0}])
    assert chain.needs_logits("mine.weightings:certain") and not chain.needs_gradients("mine.weightings:certain")
    probabilities = np.float32([[[0.6, 0.4], [0.2, 0.8]]])
    weights, _ = weighting.update(
        initial(1, 2), weighting.init(initial(1, 2)), teacher_logits=jnp.log(probabilities), mask=jnp.ones(1, bool)
    )
    np.testing.assert_allclose(weights, [[0.36 / 1.0, 0.64 / 1.0]], rtol=1e-5)
    network = create_backbone("mine.networks:Patches", rngs=nnx.Rngs(0), width=3, patch=2)
    assert network(jnp.ones((2, 8, 8, 3))).features.shape == (2, network.feature_size) == (2, 3)
    with pytest.raises(InputError, match="has no option 'pover'. Did you mean 'power'"):
        chain.create([{"name": "mine.weightings:certain", "pover": 2.0}])
    with pytest.raises(InputError, match="cannot be made with the options"):
        create_backbone("mine.networks:Patches", rngs=nnx.Rngs(0), depth=3)


@pytest.mark.parametrize(
    "use",
    [
        lambda path: create_backbone(path, rngs=nnx.Rngs(0)),
        lambda path: chain.create(path),
        lambda path: choose({"mse": np.testing.assert_equal}, path, "config.distance"),
        lambda path: recipes.find(path),
        lambda path: sources.load(path, "", {}),
    ],
    ids=["backbone", "weighting", "loss", "recipe", "source"],
)
def test_what_the_user_has_not_named_is_not_imported(use, tmp_path, monkeypatch, fresh):
    (tmp_path / "unwanted.py").write_text("raise AssertionError('it was imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="--trust=unwanted:thing"):
        use("unwanted:thing")
    imports.trust({"somewhere": [{"name": "unwanted:thing"}]})
    with pytest.raises(AssertionError, match="it was imported"):
        use("unwanted:thing")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere_at_all.x:y", "there is no module 'nowhere_at_all'"),
        ("json:dump_it", "json has no 'dump_it'. Did you mean 'dump"),
        ("json:__name__", "which is str, no function or class"),
    ],
)
def test_a_wrong_path_is_explained(path, message, fresh):
    imports.trust(path)
    with pytest.raises(InputError) as refused:
        imports.load(path, "config.recipe")
    assert str(refused.value).startswith(f"config.recipe is '{path}'") and message in str(refused.value)


def test_a_name_that_is_no_path_is_nobodys_own():
    named = ("package.module:function", "m:f")
    others = ("smkd", "emokd:smkd/folder", "weights.pth#key", "C:\\x", "a:b:c", ":x", "x:", 3, None)
    assert [imports.is_path(name) for name in (*named, *others)] == [True] * 2 + [False] * len(others)


@pytest.mark.parametrize("trusted", [(), ("--trust=mine.recipes:build",)])
def test_a_runs_folder_names_what_it_would_import(page, tmp_path, trusted):
    """`evaluate` on a folder that names a recipe: refused for that, and, trusted, for what is missing."""
    config = configuration.load(f"{page}/experiment.py:recipe")
    (tmp_path / "config.json").write_text(configuration.to_json(config))
    (tmp_path / "scores.json").write_text("{}")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "emokd.evaluate", f"--workdir={tmp_path}", *trusted],
        env={"PYTHONPATH": f"{ROOT}:{page}", "PATH": "", "JAX_PLATFORMS": "cpu", "EMOKD_COMPILATION_CACHE": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert ("--trust=mine.recipes:build" in done.stderr) == (not trusted), done.stderr
