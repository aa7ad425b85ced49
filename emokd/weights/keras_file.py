"""Reads the weights in a Keras HDF5 file; its model configuration, lambdas included, is never read."""

import math
import pathlib

import numpy as np

from emokd.errors import InputError

KERAS_3 = (
    "Keras 3 numbers the arrays of its own formats (.keras, .weights.h5) without the layers' names. Load the model "
    "there and save it again by model.save('model.h5')."
)
SMALL = 1 << 26
LARGEST_RATIO = 100
"""Highest ratio of all arrays' bytes to the file's, if they are more than `SMALL`. Weights do not compress further."""
RENAMED = {"pointwise_kernel": "pointwise/kernel", "beta": "bias"}


def read_keras(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a Keras 1 or 2 file, saved whole or as weights alone (.h5, .hdf5).

    Returns:
      Arrays by "layer/array", such as "conv2d_1/kernel", in Keras's axis order. A depthwise kernel [h, w, C, M]
      becomes the array "kernel" [h, w, 1, C * M] of the module "layer/depthwise", the pointwise kernel of a
      separable convolution the one of "layer/pointwise", and a normalisation's "beta" its "bias".

    Raises:
      InputError: h5py is not installed, the file is not HDF5, or not in the layout of Keras 1 and 2.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"Reading {path} needs h5py. Install it: pip install h5py.") from error
    arrays: dict[str, np.ndarray] = {}

    limit = max(SMALL, LARGEST_RATIO * path.stat().st_size) if path.is_file() else SMALL
    claimed = 0

    def visit(name: str, item: object) -> None:
        nonlocal claimed
        if not isinstance(item, h5py.Dataset):
            return
        layer, array = name.split("/")[0], name.split("/")[-1].split(":")[0]
        if array.isdigit():
            raise InputError(f"{path}: {name!r} is not in the layout of Keras 1 and 2. {KERAS_3}")
        if item.external or item.is_virtual:
            raise InputError(f"{path}: the numbers of {name!r} are in other files, which are not read. Save it whole.")
        if item.shape is None or item.dtype.kind not in "fiub":
            raise InputError(f"{path}: {name!r} is no array of numbers ({item.dtype}). Save the weights alone.")
        claimed += math.prod(item.shape) * item.dtype.itemsize
        if claimed > limit:
            raise InputError(
                f"{path}: {name!r} is said to be of shape {item.shape}, which the file cannot hold: its arrays would "
                f"take {claimed:,} bytes or more. It is damaged; fetch or write it again."
            )
        key, value = _rename(f"{layer}/{array}", item[()], path)
        if key in arrays:
            raise InputError(
                f"{path} holds {key!r} twice, as a model nested in another does. Save the inner model on its own."
            )
        arrays[key] = value

    try:
        with h5py.File(path, "r") as file:
            root = file["model_weights"] if "model_weights" in file else file
            if not isinstance(root, h5py.Group):
                raise InputError(f"{path}: 'model_weights' is no group of layers. Save the model again.")
            root.visititems(visit)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read as HDF5: {reason}. Fetch or write the file again.") from error
    if not arrays:
        raise InputError(f"{path} holds no arrays. Save the model with its weights.")
    return arrays


def _rename(key: str, value: np.ndarray, path: pathlib.Path) -> tuple[str, np.ndarray]:
    layer, array = key.split("/")
    if array == "depthwise_kernel":
        if value.ndim != 4:
            raise InputError(f"{path}: {key!r} has shape {value.shape}, not the 4 axes of a depthwise kernel.")
        height, width, channels, multiplier = value.shape
        return f"{layer}/depthwise/kernel", value.reshape(height, width, 1, channels * multiplier)
    return f"{layer}/{RENAMED.get(array, array)}", value
