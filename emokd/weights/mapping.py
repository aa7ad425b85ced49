"""Strict conversion of a foreign checkpoint into our parameter trees: nothing left over, nothing unfilled.

An architecture says, in `emokd/weights/<architecture>.py`, only which foreign module each of our modules is:

    def foreign_module(path: str) -> str      # "backbone/blocks/0/conv" -> "layer1.0.conv1"

`path` is the module's place in the `Network`, list indices as numbers. The names of the arrays inside a module
and the order of their axes follow from the `Layout` of the framework that wrote the file.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from emokd.errors import InputError, excerpt, nearest

Tree = dict[str, Any]
WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a framework names and orders the arrays of a module.

    Attributes:
      separator: between a module's path and the name of an array.
      names: the foreign name of each of our arrays; one that is not here has the same name.
      kernel_axes: for each rank of a `kernel`, the order of foreign axes that gives ours (spatial, in, out).
      ignored: last part of the names of arrays that carry no weights.
    """

    separator: str
    names: Mapping[str, str]
    kernel_axes: Mapping[int, tuple[int, ...]]
    ignored: tuple[str, ...] = ()

    def foreign_name(self, module: str, leaf: str) -> str:
        """Name in the file of the array `leaf` of the foreign `module`."""
        return f"{module}{self.separator}{self.names.get(leaf, leaf)}"

    def to_ours(self, leaf: str, array: np.ndarray, rank: int) -> np.ndarray:
        """Reorders the axes of a kernel; every other array stays as it is.

        A convolution that our model computes as a linear layer of `rank` 2 is flattened to [spatial * in, out].
        """
        if leaf != "kernel":
            return array
        array = array.transpose(self.kernel_axes.get(array.ndim, range(array.ndim)))
        if rank == 2 < array.ndim:
            array = array.reshape(-1, array.shape[-1])
        return np.ascontiguousarray(array)


TORCH = Layout(
    separator=".",
    names={"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"},
    kernel_axes={2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)},
    ignored=("num_batches_tracked",),
)
KERAS = Layout(
    separator="/",
    names={"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"},
    kernel_axes={},
)


def unwrap(loaded: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Takes off what training scripts put around a state dict.

    Args:
      loaded: what the file holds: a state dict, or a dict with one under "state_dict", "model_state_dict" or "model".
      source: the file's name, for messages.

    Returns:
      The state dict, without a "module." or "_orig_mod." that every name begins with.

    Raises:
      InputError: it is not clear which of several state dicts is meant, or names are not strings.
    """
    while inner := [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]:
        if len(inner) > 1:
            raise InputError(
                f"{source} holds several state dicts ({', '.join(inner)}). Save the one you mean in its own file."
            )
        loaded = loaded[inner[0]]
    if not all(isinstance(name, str) for name in loaded):
        raise InputError(f"{source} is not a state dict: its keys are not names but {excerpt(map(repr, loaded), 3)}.")
    flat = dict(loaded)
    while flat and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in flat)), None)):
        flat = {name.removeprefix(prefix): value for name, value in flat.items()}
    return flat


def flatten(tree: Tree) -> dict[str, Any]:
    """Leaves of a nested dict by their path, such as "backbone/blocks/0/conv/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[str, Any], like: Tree) -> Tree:
    """Inverse of `flatten`, with the keys (integers where lists were) and the structure of `like`."""
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), [leaves[path] for path in flatten(like)])


def compare(path: str, expected: jax.ShapeDtypeStruct, found: np.ndarray) -> str | None:
    """Says what is wrong with an array that is to become the leaf at `path`, or None."""
    if found.shape != expected.shape:
        return f"{path}: expected {expected.shape}, found {found.shape}"
    if not np.issubdtype(found.dtype, np.floating):
        return f"{path}: expected floating point, found {found.dtype}"
    with np.errstate(over="ignore"):
        bad = int(found.size - np.isfinite(found.astype(expected.dtype)).sum())
    return f"{path}: expected finite numbers, found {bad} of {found.size} NaN or infinite" if bad else None


def refuse(problems: Sequence[str], source: str, remedy: str) -> None:
    """Raises one InputError that lists every problem, if there is one."""
    if problems:
        raise InputError(
            f"{source} does not fit the model in {len(problems)} places.\n{remedy}\n  " + "\n  ".join(problems)
        )


def convert(
    foreign: Mapping[str, np.ndarray],
    abstract: tuple[Tree, Tree],
    foreign_module: Callable[[str], str],
    *,
    layout: Layout = TORCH,
    leave_out: Iterable[str] = (),
    source: str = "The checkpoint",
) -> tuple[Tree, Tree]:
    """Converts a foreign state dict into our (params, stats).

    Args:
      foreign: arrays by foreign name, without wrappers (see `unwrap`).
      abstract: shapes and dtypes of our trees: `Functional.abstract`.
      foreign_module: the foreign module of one of ours; KeyError where there is none.
      layout: naming and axis order of the framework that wrote the file.
      leave_out: foreign modules whose arrays are not wanted, such as a head over other classes.
      source: the file's name, for messages.

    Returns:
      (params, stats) in the structure and dtypes of `abstract`, NumPy arrays on the host.

    Raises:
      InputError: listing every array of the file that nothing uses, every parameter that the file does not
        fill, every wrong shape, and every array with NaN or infinity; or a `leave_out` that matches nothing.
    """
    remaining = leave_out_modules(foreign, leave_out, layout, source)
    taken: dict[str, str] = {}
    problems: list[str] = []
    trees = []
    for kind, tree in zip(("params", "stats"), abstract, strict=True):
        leaves = {}
        for path, expected in flatten(tree).items():
            module, _, leaf = path.rpartition("/")
            ours = f"{kind}/{path}"
            try:
                name = layout.foreign_name(foreign_module(module), leaf)
            except KeyError:
                problems.append(f"{ours}: expected {expected.shape}, but the foreign model has no such module")
                continue
            if name not in remaining:
                problems.append(f"{ours}: expected {expected.shape} from {name!r}, which the file does not hold")
                continue
            if name in taken:
                problems.append(f"{ours}: expected an array of its own, found {name!r}, already used for {taken[name]}")
            taken[name] = ours
            found = layout.to_ours(leaf, np.asarray(remaining[name]), len(expected.shape))
            if problem := compare(f"{ours} from {name!r}", expected, found):
                problems.append(problem)
                continue
            leaves[path] = found.astype(expected.dtype)
        trees.append(leaves)
    problems += [
        f"{name!r}: expected nowhere in the model, found {np.shape(value)}"
        for name, value in remaining.items()
        if name not in taken
    ]
    refuse(
        problems,
        source,
        "Check that the file and the model are the same architecture, and leave out (leave_out) foreign modules "
        "that are not wanted, such as a head over other classes:",
    )
    params, stats = (unflatten(leaves, tree) for leaves, tree in zip(trees, abstract, strict=True))
    return params, stats


def leave_out_modules(
    foreign: Mapping[str, np.ndarray], modules: Iterable[str], layout: Layout, source: str
) -> dict[str, np.ndarray]:
    """A state dict without what carries no weights, and without the named foreign modules.

    Raises:
      InputError: one of `modules` is not in the file.
    """
    kept = {k: v for k, v in foreign.items() if k.rpartition(layout.separator)[2] not in layout.ignored}
    for module in modules:
        prefix = module.rstrip(layout.separator) + layout.separator
        dropped = [name for name in kept if name.startswith(prefix)]
        if not dropped:
            known = {name.rpartition(layout.separator)[0] for name in kept}
            raise InputError(
                f"{source} holds no module {module!r} to leave out.{nearest(module, known)} "
                f"It holds {excerpt(sorted(known))}."
            )
        for name in dropped:
            del kept[name]
    return kept
