"""Whether made-up examples of a data set look like its own."""

import numpy as np

from emokd.data import sources
from emokd.data.examples import Rows


def interface(examples):
    """Names, classes, shapes and types of what examples give, and which of it is an array in memory."""
    inputs = {
        name: (read(0).shape, read(0).dtype, isinstance(read, Rows) and (read.array.dtype, read.names))
        for name, read in examples.inputs.items()
    }
    columns = {name: (values.shape[1:], values.dtype) for name, values in examples.columns.items()}
    return examples.classes, columns, inputs


def assert_described(source, directory, options):
    """Asserts that a source describes what it loads, example by example, and that no class and no column is dead."""
    made, loaded = sources.describe(source, options, 20), sources.load(source, str(directory), options)
    classes, columns, inputs = interface(loaded)
    if "image" in inputs:  # of any size: the canvas decides
        made_image, image = (each.inputs["image"](0) for each in (made, loaded))
        assert (made_image.ndim, made_image.dtype) == (image.ndim, image.dtype)
        inputs["image"] = interface(made)[2]["image"]
    assert interface(made) == (classes, columns, inputs)
    assert len(made) == 20 and len(set(made.ids.tolist())) == 20
    for name, names in classes.items():
        assert set(made.columns[name].tolist()) == set(range(len(names)))
    for read in made.inputs.values():
        if isinstance(read, Rows):
            assert (np.ptp(read.raw(), axis=0) > 0).all()
