"""Examples without inputs, which tests divide into splits and folds."""

import numpy as np

from emokd.data.examples import Examples

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def make(labels, keys=None, contents=None, classes=("calm", "glad", "sad"), **options):
    labels = np.asarray(labels, np.int32)
    keys = [f"picture{i}" for i in range(len(labels))] if keys is None else keys
    contents = keys if contents is None else contents
    options = {"columns": {"expression": labels}, "classes": {"expression": classes}, **options}
    return Examples(name="toy", keys=keys, inputs={}, content=lambda i: contents[i], **options)


def keys_of(parts):
    return {name: set(part.keys) for name, part in parts.items()}


def check_partition(examples, parts):
    keys = [key for part in parts.values() for key in part.keys]
    assert sorted(keys) == sorted(examples.keys)


def toy(n=230, seed=0):
    return np.random.default_rng(seed).choice(3, n, p=[0.6, 0.3, 0.1])


def subjects(*counts):
    """Groups s1, s2, ... of so many examples each, of three classes in turn."""
    names = [f"s{k + 1}" for k, count in enumerate(counts) for _ in range(count)]
    return np.arange(len(names)) % 3, np.array(names)
