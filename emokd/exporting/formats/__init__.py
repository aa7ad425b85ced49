"""The formats that a model can be exported to: a file here, and a line in this table."""

from collections.abc import Mapping

from emokd.errors import InputError, nearest
from emokd.exporting.formats import onnx, stablehlo, tflite, torch
from emokd.exporting.formats.format import Format

FORMATS: Mapping[str, Format] = {
    "onnx": onnx.FORMAT,
    "stablehlo": stablehlo.FORMAT,
    "tflite": tflite.FORMAT,
    "torch": torch.FORMAT,
}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
      InputError: there is none.
    """
    if name not in FORMATS:
        raise InputError(f"There is no format {name!r}.{nearest(name, FORMATS)} Known: {', '.join(FORMATS)}.")
    return FORMATS[name]
