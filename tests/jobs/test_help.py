"""`--help`: the required flags first, every flag of the command once, nothing of libraries."""

import pathlib
import re
import subprocess
import sys

import pytest
from absl import flags

from emokd.jobs import help

ROOT = pathlib.Path(__file__).parents[2]


def defined():
    found = flags.FlagValues()
    flags.DEFINE_bool("loud", False, "Says\n  more.", flag_values=found)
    flags.DEFINE_enum("format", "csv", ["", "csv", "jsonl"], "What is written.", flag_values=found)
    flags.DEFINE_string("a_very_long_name_of_a_flag", "", "Empty.", flag_values=found)
    flags.DEFINE_string("model", None, "The model. " * 12, flag_values=found, required=True)
    flags.DEFINE_integer("rows", 0, "Rows; 0: all.", flag_values=found)
    return [found[name] for name in ("loud", "format", "a_very_long_name_of_a_flag", "model", "rows")]


def test_required_flags_come_first_and_the_others_in_their_order():
    lines = help.text("Does it.", defined()).splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  --")] == [
        "--model=...", "--[no]loud", "--format=...", "--a_very_long_name_of_a_flag=...", "--rows=...",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert lines[0] == "Does it." and max(map(len, lines)) <= help.WIDTH
    assert "<" not in text and "Says more." in text and "What is written. One of csv, jsonl. (default: csv)" in text
    assert "(required)" in text and "0: all.\n" in text


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [(["--help"], True), (["--model=x", "-h"], True), (["--", "--help"], False), (["--helpfull"], False), ([], False)],
)
def test_who_asks(arguments, asked):
    assert help.is_asked(["program", *arguments]) is asked


def test_a_command_prints_it_and_ends_well():
    command = [sys.executable, "-m", "emokd.evaluate", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    names = re.findall(r"^  --(?:\[no\])?(\w+)", done.stdout, re.M)
    assert names[0] == "workdir" and sorted(names) == [
        "accept_changed_data", "batch_size", "by", "devices", "split", "trust", "workdir",
    ]  # fmt: skip
