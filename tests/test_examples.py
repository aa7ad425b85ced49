"""The examples in docstrings, run as they stand; what a stranger calls by name has one."""

import ast
import doctest
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
# Modules whose public functions are pure and small enough to be shown in a line or two.
SHOWN = ("labels.py", "losses/*.py", "metrics.py", "weighting/modifiers.py", "weighting/rules.py")
FINDER = doctest.DocTestFinder(exclude_empty=True)
# What examples use without importing it.
USUAL = {"jax": jax, "jnp": jnp, "np": np}


def examples() -> dict[str, doctest.DocTest]:
    """Every docstring of the package with an example, by its dotted name; modules without any are not imported."""
    found = {}
    for file in sorted((ROOT / "emokd").rglob("*.py")):
        if ">>> " in file.read_text():
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            tests = FINDER.find(importlib.import_module(name), extraglobs=USUAL)
            found |= {test.name: test for test in tests if test.examples}
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_happens(name):
    said: list[str] = []
    results = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(EXAMPLES[name], out=said.append)
    assert results.attempted and not results.failed, "".join(said)


def test_what_is_shown_has_an_example():
    files = [file for pattern in SHOWN for file in sorted((ROOT / "emokd").glob(pattern))]
    # The losses call shapes and directions, nobody else does; `clouds_of_similarities` is the second half of `clouds`.
    names = {
        f"{'.'.join(file.relative_to(ROOT).with_suffix('').parts)}.{node.name}"
        for file in files
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and file.stem not in ("directions", "shapes")
    } - {"emokd.losses.structure.clouds_of_similarities"}
    assert len(names) > 30 and sorted(names - set(EXAMPLES)) == []
