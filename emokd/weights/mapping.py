"""Converts a foreign checkpoint into our parameter trees strictly: every array is used, every parameter is filled.

An architecture says, in `emokd/weights/<architecture>.py`, only which foreign module each of our modules is:

    def foreign_module(path: str) -> str      # "backbone/blocks/0/conv" -> "layer1.0.conv1"

`path` is the module's place in the `Network`, list indices as numbers. The names of the arrays inside a module
and the order of their axes follow from the `Layout` of the framework that wrote the file.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from emokd.errors import InputError, excerpt, nearest

Tree = dict[str, Any]
SHOWN = 5
"""How many misfits of one kind a message lists."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a framework names and orders the arrays of a module.

    Attributes:
      separator: between a module's path and the name of an array.
      names: the foreign name of each of our arrays; arrays that are not listed have the same name.
      kernel_axes: for each rank of a `kernel`, the order of foreign axes that gives ours (spatial, in, out).
      ignored: last parts of the names of arrays that hold no weights.
    """

    separator: str
    names: Mapping[str, str]
    kernel_axes: Mapping[int, tuple[int, ...]]
    ignored: tuple[str, ...] = ()

    def foreign_name(self, module: str, leaf: str) -> str:
        """Name in the file of the array `leaf` of the foreign `module`."""
        return f"{module}{self.separator}{self.names.get(leaf, leaf)}"

    def ordered(self, leaf: str, array: np.ndarray) -> np.ndarray:
        """A view with the axes of a kernel in our order; every other array as it is."""
        return array.transpose(self.kernel_axes.get(array.ndim, range(array.ndim))) if leaf == "kernel" else array

    def to_ours(self, leaf: str, array: np.ndarray, rank: int) -> np.ndarray:
        """Reorders the axes of a kernel; every other array stays as it is.

        A convolution that our model computes as a linear layer of `rank` 2 is flattened to [spatial * in, out].
        """
        if leaf != "kernel":
            return array
        array = self.ordered(leaf, array)
        if rank == 2 < array.ndim:
            array = array.reshape(-1, array.shape[-1])
        return np.ascontiguousarray(array)


TORCH = Layout(
    separator=".",
    names={
        "kernel": "weight",
        "scale": "weight",
        "embedding": "weight",
        "mean": "running_mean",
        "var": "running_var",
    },
    kernel_axes={2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)},
    # Counters that BatchNorm, averaged models and tools that count operations keep.
    ignored=("num_batches_tracked", "n_averaged", "total_ops", "total_params"),
)
KERAS = Layout(
    separator="/",
    names={"scale": "gamma", "mean": "moving_mean", "var": "moving_variance"},
    kernel_axes={},
)
TFJS = Layout(separator="/", names={}, kernel_axes={})


@dataclasses.dataclass(frozen=True)
class Names:
    """One naming of an architecture's modules in files.

    Attributes:
      label: the library whose naming it is, for messages.
      foreign_module: the foreign module of one of ours; KeyError where there is none.
      options: options of the backbone that networks with these names need.
    """

    label: str
    foreign_module: Callable[[str], str]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def flatten(tree: Tree) -> dict[str, Any]:
    """Leaves of a nested dict by their path, such as "backbone/blocks/0/conv/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def unflatten(leaves: Mapping[str, Any], like: Tree) -> Tree:
    """Inverse of `flatten`, with the keys (integers where lists were) and the structure of `like`."""
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(like), [leaves[path] for path in flatten(like)])


def compare(path: str, expected: jax.ShapeDtypeStruct, array: np.ndarray) -> str | None:
    """Says how an array differs in shape, dtype or values from what the leaf at `path` needs; None if it fits."""
    if array.shape != expected.shape:
        return f"{path}: expected {expected.shape}, found {array.shape}"
    if not np.issubdtype(array.dtype, np.floating):
        return f"{path}: expected floating point, found {array.dtype}"
    with np.errstate(over="ignore"):
        bad = int(array.size - np.isfinite(array.astype(expected.dtype)).sum())
    return f"{path}: expected finite numbers, found {bad} of {array.size} NaN or infinite" if bad else None


def refuse(problems: Sequence[str], source: str, remedy: str, *more: Sequence[str]) -> None:
    """Raises one InputError that lists the first problems of each kind and counts the others; nothing without problems.

    Args:
      problems: problems of the first kind.
      source: the file's name.
      remedy: what to do.
      *more: problems of further kinds.
    """
    kinds = [kind for kind in (problems, *more) if kind]
    if not kinds:
        return
    lines = []
    for kind in kinds:
        lines += [*kind[:SHOWN], *([f"... and {len(kind) - SHOWN} more like these"] if len(kind) > SHOWN else [])]
    total = sum(map(len, kinds))
    raise InputError(f"{source} does not fit the model in {total} places.\n{remedy}\n  " + "\n  ".join(lines))


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
      foreign: arrays by foreign name, without wrappers (see `wrapping`).
      abstract: shapes and dtypes of our trees: `Functional.abstract`.
      foreign_module: the foreign module of one of ours; KeyError where there is none.
      layout: naming and axis order of the framework that wrote the file.
      leave_out: foreign modules whose arrays are not wanted, such as a head over other classes.
      source: the file's name, for messages.

    Returns:
      (params, stats) in the structure and dtypes of `abstract`, NumPy arrays on the host.

    Raises:
      InputError: listing, of each kind the first few, arrays of the file that nothing uses, parameters that the file
        does not fill, wrong shapes, and arrays with NaN or infinity; or a `leave_out` that matches nothing.
    """
    remaining = leave_out_modules(foreign, leave_out, layout, source)
    taken: dict[str, str] = {}
    problems: list[str] = []
    missing: list[str] = []
    trees = []
    for kind, tree in zip(("params", "stats"), abstract, strict=True):
        leaves = {}
        for path, expected in flatten(tree).items():
            module, _, leaf = path.rpartition("/")
            ours = f"{kind}/{path}"
            try:
                name = layout.foreign_name(foreign_module(module), leaf)
            except KeyError:
                missing.append(f"{ours}: expected {expected.shape}, but the foreign model has no such module")
                continue
            if name not in remaining:
                missing.append(f"{ours}: expected {expected.shape} from {name!r}, which the file does not hold")
                continue
            if name in taken:
                problems.append(f"{ours}: expected an array of its own, found {name!r}, already used for {taken[name]}")
            taken[name] = ours
            array = np.asarray(remaining[name])
            if array.size != expected.size:  # before axes are reordered: a small file may claim an array of any size
                problems.append(
                    f"{ours} from {name!r}: expected {expected.shape}, found {layout.ordered(leaf, array).shape}"
                )
                continue
            converted = layout.to_ours(leaf, array, len(expected.shape))
            if problem := compare(f"{ours} from {name!r}", expected, converted):
                problems.append(problem)
                continue
            leaves[path] = converted.astype(expected.dtype)
        trees.append(leaves)
    unused = {name: value for name, value in remaining.items() if name not in taken}
    refuse(
        problems,
        source,
        "Check that the file and the model are the same architecture, and leave out (leave_out) foreign modules "
        f"that are not wanted, such as a head over other classes.{_pattern(unused, taken, layout)}",
        missing,
        [f"{name!r}: expected nowhere in the model, found {np.shape(value)}" for name, value in unused.items()],
    )
    params, stats = (unflatten(leaves, tree) for leaves, tree in zip(trees, abstract, strict=True))
    return params, stats


def _pattern(unused: Mapping[str, Any], taken: Mapping[str, str], layout: Layout) -> str:
    """Says what many unused arrays have in common, for a message; empty for a few."""
    if len(unused) <= SHOWN:
        return ""
    begins = collections.Counter(name.split(layout.separator)[0] for name in unused)
    common = ", ".join(f"{begin}{layout.separator} ({count})" for begin, count in begins.most_common(SHOWN))
    fits = f"{len(taken)} arrays fit" if taken else "No name fits: the file has another layout or architecture"
    return f" {fits}; {len(unused)} that fit nowhere begin with {common}."


def leave_out_modules(
    foreign: Mapping[str, np.ndarray], modules: Iterable[str], layout: Layout, source: str
) -> dict[str, np.ndarray]:
    """A state dict without arrays that hold no weights, and without the named foreign modules.

    Raises:
      InputError: one of `modules` is not in the file.
    """
    kept = {k: v for k, v in foreign.items() if k.rpartition(layout.separator)[2] not in layout.ignored}
    for module in modules:
        prefix = module.rstrip(layout.separator) + layout.separator
        dropped = [name for name in kept if name.startswith(prefix)]
        if not dropped:
            modules_of_file = {name.rpartition(layout.separator)[0] for name in kept}
            raise InputError(
                f"{source} holds no module {module!r} to leave out.{nearest(module, modules_of_file)} "
                f"It holds {excerpt(sorted(modules_of_file))}."
            )
        for name in dropped:
            del kept[name]
    return kept
