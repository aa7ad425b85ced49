"""Checks a data set before anything is trained on it. Exit code 1: there are findings; 0: there are none.

python -m emokd.check_data --config=FILE [--config.data.dir=FOLDER] [--sheet=FILE.png]
python -m emokd.check_data --source=NAME [--dir=FOLDER] [--options=JSON] [--sheet=FILE.png]
"""

from emokd import needs_training  # noqa: F401  (before what it looks for)

# isort: split
import json
import pathlib
import sys

import ml_collections
import numpy as np
from absl import flags

from emokd.configuration import defaults
from emokd.configuration.flag import define_config_flag
from emokd.data.audit.findings import find_all
from emokd.data.audit.sheet import as_png, contact_sheet
from emokd.data.audit.tables import count_table
from emokd.data.division.duplicates import find_duplicates
from emokd.data.examples import Examples
from emokd.errors import InputError
from emokd.files import write_whole
from emokd.jobs.command import run
from emokd.jobs.datasets import divide, load_examples

FINDINGS = 1
"""Exit code when there are findings."""

CONFIG = define_config_flag(required=False)
SOURCE = flags.DEFINE_string("source", None, "A data set's name, in place of --config.")
DIR = flags.DEFINE_string("dir", "", "Its folder; empty: under $EMOKD_DATA.")
OPTIONS = flags.DEFINE_string("options", "{}", "What the source takes, a JSON object.")
SHEET = flags.DEFINE_string("sheet", None, "Write a page with pictures of every class to this PNG file.")


def main(argv: list[str]) -> None:
    """The command.

    Raises:
      InputError: the flags contradict each other, or the data set cannot be loaded at all.
    """
    del argv
    data = _section()
    if SHEET.value and (pathlib.Path(SHEET.value).is_dir() or not pathlib.Path(SHEET.value).absolute().parent.is_dir()):
        raise InputError(f"--sheet={SHEET.value} cannot be written: give a file in a folder that exists.")
    examples = load_examples(data, data.canvas)
    duplicates = find_duplicates(examples, data.split.compare_copies)
    refused, parts = [], {}
    try:
        parts = _places(examples, divide(examples, data, duplicates))
    except InputError as error:
        refused = [f"It cannot be divided: {error}"]
    print(f"{examples.name}: {len(examples)} examples\n")
    print(count_table(data.source, examples, parts))
    findings = [*refused, *find_all(data.source, examples, parts, duplicates)]
    print(f"\nFindings: {len(findings) or 'none'}")
    for finding in findings:
        print(f"- {finding}")
    if SHEET.value:
        write_whole(pathlib.Path(SHEET.value), as_png(contact_sheet(examples)))
        print(f"\nSheet: {SHEET.value}")
    if findings:
        sys.exit(FINDINGS)


def _section() -> ml_collections.ConfigDict:
    """The section `data` that the flags describe."""
    if (CONFIG.value is None) == (SOURCE.value is None):
        raise InputError("Give either --config=FILE or --source=NAME.")
    if CONFIG.value is not None:
        if "data" not in CONFIG.value:
            raise InputError("--config is no job's configuration: it has no section `data`. Of a study, give its base.")
        return CONFIG.value.data
    try:
        options = json.loads(OPTIONS.value)
    except (ValueError, RecursionError) as error:
        raise InputError(f'--options is no JSON: {error}. Write it as \'{{"classes": ["a", "b"]}}\'.') from error
    if not isinstance(options, dict):
        raise InputError(f'--options is {OPTIONS.value}; give a JSON object, such as \'{{"task": "terciles"}}\'.')
    section = defaults.data()
    try:
        section.source, section.dir, section.options = SOURCE.value, DIR.value, options
    except ValueError as error:  # a dot in a name is what a path through a configuration is written with
        raise InputError(f"--options is {OPTIONS.value}: {error}") from error
    return section


def _places(examples: Examples, splits: dict[str, Examples]) -> dict[str, np.ndarray]:
    place = {key: i for i, key in enumerate(examples.keys)}
    return {name: np.array([place[key] for key in part.keys], np.int64) for name, part in splits.items()}


if __name__ == "__main__":
    run(main)
