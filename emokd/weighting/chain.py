"""Builds weightings from a configuration: by name, with their options, chained in order."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from emokd import imports
from emokd.errors import InputError, nearest
from emokd.weighting import modifiers, rules
from emokd.weighting.transform import Weighting, chain

Spec: TypeAlias = str | Mapping[str, Any] | Sequence[Mapping[str, Any] | str]
"""A weighting as a configuration states it, see `create`."""

WEIGHTINGS: Mapping[str, Callable[..., Weighting]] = {
    name: make
    for module in (rules, modifiers)
    for name, make in vars(module).items()
    if inspect.isfunction(make) and make.__module__ == module.__name__ and not name.startswith("_")
}
"""Every public function of `rules` and `modifiers`, by its name."""


def create(spec: Spec, *, group: int = 0, **options) -> Weighting:
    """Builds a weighting from configuration.

    Args:
      spec: a name, or the import path "package.module:function" of a user's own weighting; a mapping with the key
        `name` and the options beside it; or a list of these, chained in order. An option that is itself a weighting,
        as those of `where_unlabelled` are, is such a spec too.
      group: of how many neighbouring rows the recipe's losses are; rules that choose per batch choose for each such
        group, unless their own option `group` says otherwise.
      **options: the options, where `spec` is a name alone.

    Raises:
      InputError: the name is unknown (the message gives the nearest), or the options do not fit.
    """
    if isinstance(spec, str):
        return chain(_create_one(spec, options, group))
    if options:
        raise InputError(f"Options {sorted(options)} are given beside a whole weighting; put them into it.")
    parts = [spec] if hasattr(spec, "items") else list(spec)
    if not parts:
        raise InputError("The weighting is an empty list; say [{'name': 'uniform'}] for equal weights.")
    transforms = []
    for part in parts:
        if not isinstance(part, str) and not hasattr(part, "items"):
            raise InputError(f"A weighting is a name or a mapping with the key 'name', not {part!r}.")
        settings = {"name": part} if isinstance(part, str) else dict(part.items())
        if "name" not in settings:
            raise InputError(f"The weighting {settings} has no 'name'. Known: {', '.join(sorted(WEIGHTINGS))}.")
        transforms.append(_create_one(settings.pop("name"), settings, group))
    return chain(*transforms)


def needs_gradients(spec: Spec) -> bool:
    """Whether this weighting reads the evidence `gradients`, which costs a backward pass."""
    return "gradients" in create(spec).reads


def needs_logits(spec: Spec) -> bool:
    """Whether this weighting reads the teachers' logits, or errors, which are computed from logits by default."""
    return not create(spec).reads.isdisjoint({"teacher_logits", "errors"})


def _create_one(name: str, options: Mapping[str, Any], group: int) -> Weighting:
    if imports.is_path(name):
        make = imports.load(name, "The weighting")
    elif name in WEIGHTINGS:
        make = WEIGHTINGS[name]
    else:
        known = ", ".join(sorted(WEIGHTINGS))
        raise InputError(
            f"There is no weighting {name!r}.{nearest(str(name), WEIGHTINGS)} Known: {known}, or "
            "package.module:function of your own."
        )
    taken = inspect.signature(make).parameters
    for option in options:
        if option not in taken:
            known = ", ".join(taken) or "none"
            raise InputError(f"Weighting {name!r} has no option {option!r}.{nearest(option, taken)} It takes: {known}.")
    missing = [key for key, parameter in taken.items() if parameter.default is parameter.empty and key not in options]
    if missing:
        raise InputError(f"Weighting {name!r} needs the option {missing[0]!r}.")
    nested = {key for key, parameter in taken.items() if parameter.annotation is Weighting}
    options = {key: create(value, group=group) if key in nested else value for key, value in options.items()}
    if group and "group" in taken and name in WEIGHTINGS:
        options = {"group": group, **options}
    try:
        return make(**options)
    except TypeError as error:
        raise InputError(f"Weighting {name!r} cannot be made with the options {dict(options)}: {error}") from error
