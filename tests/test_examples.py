"""The examples in docstrings, run as they stand; what the site's page of Python shows has one."""

import ast
import doctest
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[1]
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


def test_what_the_site_shows_has_an_example():
    shown = re.findall(
        r"^::: (emokd\.(?:losses|metrics|weighting)\b.*)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    names = set()
    for module in {*shown, "emokd.labels"}:
        tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        names |= {f"{module}.{name}" for name in functions if not name.startswith("_")}
    # The second halves of functions that have an example; and what makes a transform out of a rule.
    halves = {name for name in names if name.endswith("_of_similarities")}
    makers = {f"emokd.weighting.transform.{name}" for name in ("reads_of", "stateless", "by_label", "finish")}
    assert len(names) > 30 and sorted(names - halves - makers - set(EXAMPLES)) == []
