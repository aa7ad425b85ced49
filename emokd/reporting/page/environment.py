"""Jinja2 for the page: every text is escaped, and a name that a template lacks is an error."""

import functools
import pathlib

import jinja2

TEMPLATES = pathlib.Path(__file__).parent / "templates"


@functools.cache
def environment() -> jinja2.Environment:
    """The environment, made once."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
