"""What the README and the pages under docs name must exist: files, modules, configuration keys, links."""

import ast
import functools
import importlib
import itertools
import pathlib
import pkgutil
import re

import pytest
import yaml
from ml_collections import ConfigDict
from test_rooms import ALLOWED

from emokd import recipes
from emokd.configuration import config as configuration
from emokd.configuration import defaults
from emokd.configuration.durations import adopt_unit
from emokd.errors import InputError

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

PATH = re.compile(r"(?<![\w./$-])(?:\.ci|configs|docs|emokd|launch|tests)/[\w./*{},-]*[\w*}]")
# What a command writes need not be there.
OUTPUT = re.compile(r"--(?:json|output|page|trace|workdir)=\S+")
MODULE = re.compile(r"(?<![\w./-])emokd((?:\.\w+)+)")
# `config.json` is a file, and `--config.key=value` stands for any key.
KEY = re.compile(r"(?<![\w./])(?:--)?config\.(?!json\b|key\b)(\w+(?:\.(?:\w+|\*))*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROW = re.compile(r"^\| `config\.([\w.]+)` \| (?:`(.+?)` )?\|", re.MULTILINE)
# A capital word stands for a name of the reader's own: CLASS, NAME, MY_DATA.
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b")


def of_page(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def recipe_names() -> list[str]:
    return sorted(m.name for m in pkgutil.iter_modules(recipes.__path__) if not m.ispkg)


@functools.cache
def default_config(recipe: str) -> ConfigDict:
    """The recipe's configuration with one teacher and one modality, both called NAME, where it takes any."""
    config = importlib.import_module(f"emokd.recipes.{recipe}").default_config()
    for section, example in (("teachers", defaults.teacher()), ("modalities", defaults.modality("image", "mlp"))):
        if section in config:
            config[section].NAME = example
    return config


def own_keys(recipe: str) -> set[str]:
    """What a recipe's configuration has beyond every run's; a section of phases or of a modality is a key."""
    config = default_config(recipe)
    keys = {f"phases.{name}" for name in config.phases}
    for name in set(config) - set(defaults.run(recipe)):
        section = config[name].get("NAME", config[name]) if isinstance(config[name], ConfigDict) else {}
        prefix = f"{name}.NAME" if section and "NAME" in config[name] else name
        keys |= {f"{prefix}.{key}" for key in section} or {name}
    return keys


def alternatives(pattern: str) -> list[str]:
    """Every path that a pattern with {a,b} stands for."""
    parts = re.split(r"\{([^}]*)\}", pattern)
    options = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(choice) for choice in itertools.product(*options)]


def missing_paths(text: str) -> list[str]:
    """Files and folders of the project that a text names and that are not there."""
    found = [path for pattern in PATH.findall(OUTPUT.sub("", text)) for path in alternatives(pattern)]
    return [path for path in found if not any(ROOT.glob(PLACEHOLDER.sub("*", path)))]


def missing_modules(text: str) -> list[str]:
    """Modules of emokd, and names in them, that a text has and that are not there."""
    missing = []
    for dotted in MODULE.findall(text):
        names, place = dotted[1:].split("."), ROOT / "emokd"
        while names and (place / names[0]).is_dir():
            place /= names.pop(0)
        if names and (place / f"{names[0]}.py").is_file():
            place /= f"{names.pop(0)}.py"
        elif names:
            place /= "__init__.py"
        if names and names[0] not in top_level_names(place):
            missing.append(f"emokd{dotted}")
    return missing


def top_level_names(file: pathlib.Path) -> set[str]:
    """What a module defines; it is read, because the commands' flags cannot all be defined in one process."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":  # what is imported when asked for
            found |= {alias.name for each in node.body if isinstance(each, ast.ImportFrom) for alias in each.names}
    return found


def is_key(key: str, recipe: str) -> bool:
    """Whether the recipe's configuration has the key; teachers and modalities may have any name, options any key."""
    key = re.sub(r"^(teachers|modalities)\.\w+", r"\1.NAME", key)
    key = re.sub(r"\boptions\..*", "options", key).removesuffix(".*")
    config = default_config(recipe).copy_and_resolve_references()
    adopt_unit(config, key)
    try:
        configuration.check_key(config, key)
    except InputError:
        return False
    return True


def unknown_keys(text: str, recipe: str | None = None) -> list[str]:
    """Keys written as config.x.y that this recipe does not have, or, without one, that no recipe has."""
    names = [recipe] if recipe else recipe_names()
    return [key for key in KEY.findall(text) if not any(is_key(key, name) for name in names)]


def anchors(page: pathlib.Path) -> set[str]:
    """The fragments by which a page's headings are linked."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, page: pathlib.Path) -> list[str]:
    """Relative links of a text, seen from `page`, to a file or heading that is not there."""
    broken = []
    for link in LINK.findall(text):
        if re.match(r"\w+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    recipe = page.stem if page.parent == ROOT / "docs" and page.stem in recipe_names() else None
    assert missing_paths(text) == []
    assert missing_modules(text) == []
    assert unknown_keys(text, recipe) == []
    assert broken_links(text, page) == []


def test_every_configuration_is_on_some_page():
    text = "\n".join(page.read_text() for page in PAGES)
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "configs").rglob("*.py"))]
    assert files and [file for file in files if file not in text] == []


def test_every_page_is_linked():
    linked = {
        (page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in LINK.findall(page.read_text())
    }
    documents = {page for page in PAGES if page.parent == ROOT / "docs"}
    assert documents and sorted(map(of_page, documents - linked)) == []


def pages_of(entry) -> list[str]:
    """The pages that an entry of the navigation leads to; a folder stands for all pages in it."""
    if isinstance(entry, str):
        found = sorted((ROOT / "docs" / entry).glob("*.md")) if entry.endswith("/") else [ROOT / "docs" / entry]
        return [str(page.relative_to(ROOT / "docs")) for page in found]
    return [page for each in (entry.values() if isinstance(entry, dict) else entry) for page in pages_of(each)]


def test_every_page_is_in_the_navigation_once():
    elsewhere = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changes.md": "CHANGELOG.md"}
    assert all((ROOT / source).is_file() for source in elsewhere.values())
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(pages_of(SITE["nav"])) == sorted([*pages, *elsewhere])


def test_lists_and_tables_begin_after_an_empty_line():
    """Elsewhere than on GitHub they are drawn as one paragraph otherwise."""
    begins = re.compile(r"^(?![-|#> ]|\d+\. |\s*$).*\n(?:- |\| |\d+\. )", re.MULTILINE)
    found = [(of_page(page), begins.findall(unfenced(page.read_text()))) for page in PAGES]
    assert [(page, lines) for page, lines in found if lines] == []


def unfenced(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("recipe", ["bounded", "mtpkdot", "smkd"])
def test_a_recipes_page_has_its_keys_and_their_defaults(recipe):
    config, rows = default_config(recipe), ROW.findall((ROOT / "docs" / f"{recipe}.md").read_text())
    for key, default in rows:
        value = functools.reduce(lambda section, name: section[name], key.split("."), config)
        if not default:
            continue
        expected = ast.literal_eval(default)
        if not isinstance(value, ConfigDict):
            assert value == expected, key
        elif expected:
            assert {name: value[name] for name in expected} == expected, key
        else:
            assert set(value) <= {"NAME"}, key
    assert sorted(own_keys(recipe) - {key for key, _ in rows}) == []


def test_the_table_of_rooms_is_the_one_that_is_checked():
    rows = re.findall(r"^\| (`.+?) \| .+ \| (.+?) \|$", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    found = {room: text for rooms, text in rows for room in re.findall(r"`(\w+)`", rooms)}
    modules = {file.stem for file in (ROOT / "emokd").glob("*.py")} - {"__init__"}
    folders = {folder.parent.name for folder in (ROOT / "emokd").glob("*/__init__.py")}
    assert set(found) == modules | folders
    for room, text in found.items():
        if room not in ALLOWED:
            assert text == "everything", room
        else:
            assert set(re.findall(r"`([\w.]+)`", text)) == set(ALLOWED[room]), room


@pytest.mark.parametrize(
    ("check", "text", "found"),
    [
        (missing_paths, "see configs/smkd/fi.py:small and `emokd/data/sources/NAME.py`", []),
        (missing_paths, "--page=docs/new.md --config=configs/smkd/f1.py.", ["configs/smkd/f1.py"]),
        (missing_paths, "emokd/{losses,loses}/mmd.py", ["emokd/loses/mmd.py"]),
        (missing_paths, "`configs/bounded/*` and `configs/bound/*`", ["configs/bound/*"]),
        (missing_modules, "python -m emokd.train, emokd.errors.InputError, emokd.data.sources, emokd[video]", []),
        (missing_modules, "python -m emokd.trian --x", ["emokd.trian"]),
        (missing_modules, "`emokd.configuration.defaults.techer`", ["emokd.configuration.defaults.techer"]),
        (unknown_keys, "--config.key=value, config.json, --config.teachers.faces.checkpoint=x", []),
        (unknown_keys, "`config.phases.distill.duration_steps`, `config.data.options.any`, `config.phases.*`", []),
        (unknown_keys, "config.student.weights; --config.bond.nu=1.", ["student.weights", "bond.nu"]),
        (functools.partial(unknown_keys, recipe="smkd"), "`config.bound.nu`", ["bound.nu"]),
        (functools.partial(broken_links, page=ROOT / "docs/smkd.md"), "[a](data.md#splits) [b](https://x.y)", []),
        (functools.partial(broken_links, page=ROOT / "docs/smkd.md"), "[a](docs/data.md)", ["docs/data.md"]),
        (functools.partial(broken_links, page=ROOT / "docs/smkd.md"), "[a](data.md#split)", ["data.md#split"]),
    ],
)
def test_the_checks_themselves(check, text, found):
    assert check(text) == found
