"""Where pages and what they link lie: on the site as in the repository, so that one text serves both.

mkdocs calls these functions (`hooks` in mkdocs.yml). README.md, CONTRIBUTING.md and CHANGELOG.md become pages. A
link to any other file outside docs leads to a copy of that file on the site. A folder in the navigation stands for its
pages.
"""

import pathlib
import posixpath
import re

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config):
    """Folders in the navigation are replaced by the pages that they hold, the index first and the newest next."""
    config.nav = [_expanded(entry) for entry in config.nav]
    return config


def on_files(files, config):
    """Adds the pages that lie outside docs."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown, page, config, files):
    """Turns links that hold in the repository into links that hold on the site."""

    def replace(match):
        before, target, fragment, after = match.groups()
        return before + _place(target, page.file.src_uri, config, files) + (fragment or "") + after

    parts = FENCE.split(markdown)  # every second part is a block of code, whose text stays as it is
    return "".join(part if i % 2 else LINK.sub(replace, part) for i, part in enumerate(parts))


def _place(target: str, page: str, config, files) -> str:
    """A link's target, seen from a page of the site."""
    if re.match(r"\w+:", target):
        return target
    source = SOURCES.get(page, f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path in PAGES:
        place = PAGES[path]
    elif path.startswith("docs/"):
        place = path.removeprefix("docs/")
    else:
        place = f"source/{path}.txt"  # a browser shows text files, and may save others
        if files.get_file_from_path(place) is None and (ROOT / path).is_file():
            files.append(File.generated(config, place, content=(ROOT / path).read_text()))
    return posixpath.relpath(place, posixpath.dirname(page) or ".")


def _expanded(entry):
    if isinstance(entry, dict):
        return {title: _contents(value) for title, value in entry.items()}
    return entry


def _contents(value):
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    if not value.endswith("/"):
        return value
    folder = ROOT / "docs" / value
    names = sorted((file.name for file in folder.glob("*.md")), reverse=True)
    return [value + name for name in sorted(names, key=lambda name: name != "README.md")]
