"""Whether two sets have the same examples, but for what can be read of them."""

import numpy as np

from emokd.data.examples import Examples


def assert_same_examples(one: Examples, other: Examples) -> None:
    """Names, class lists and all targets are equal."""
    assert list(one.keys) == list(other.keys)
    assert dict(one.classes) == dict(other.classes)
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name], err_msg=name)
