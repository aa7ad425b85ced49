"""Reads the weights in a Keras HDF5 file; its model configuration, lambdas included, is never looked at."""

import pathlib

import numpy as np

from emokd.errors import InputError

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
        raise InputError(f"Reading {path} needs h5py. Install it: pip install emokd[keras].") from error
    arrays: dict[str, np.ndarray] = {}

    def visit(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        layer, array = name.split("/")[0], name.split("/")[-1].split(":")[0]
        if item.external or array.isdigit():
            raise InputError(
                f"{path}: {name!r} is not in the layout of Keras 1 and 2. With Keras 3, save the model again "
                f"by model.save('model.h5')."
            )
        key, value = _rename(f"{layer}/{array}", item[()])
        if key in arrays:
            raise InputError(
                f"{path} holds {key!r} twice, as a model nested in another does. Save the inner model on its own."
            )
        arrays[key] = value

    try:
        with h5py.File(path, "r") as file:
            (file["model_weights"] if "model_weights" in file else file).visititems(visit)
    except OSError as error:
        raise InputError(f"{path} cannot be read as HDF5: {error}. Fetch or write the file again.") from error
    return arrays


def _rename(key: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    layer, array = key.split("/")
    if array == "depthwise_kernel":
        height, width, channels, multiplier = value.shape
        return f"{layer}/depthwise/kernel", value.reshape(height, width, 1, channels * multiplier)
    return f"{layer}/{RENAMED.get(array, array)}", value
