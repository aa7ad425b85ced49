"""The TFDS builder: written and read back without TensorFlow, the same pixels as the source's."""

import subprocess
import sys

import numpy as np
import pytest

from emokd.data.sources.painter import load

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

COUNTS = {"size": 24, "train": 12, "validation": 5, "test": 3, "seed": 6}

# In a process of its own, where nothing else can have imported TensorFlow, or pytest have changed warnings.
BUILD = """
import sys
from emokd.data.tfds.painted_faces import Builder, PaintedFacesConfig
counts = dict(size=24, train=12, validation=5, test=3, seed=6)
config = PaintedFacesConfig(name="tiny", **counts)
builder = Builder(data_dir=sys.argv[1], config=config, file_format="array_record")
builder.download_and_prepare()
assert builder.name == "painted_faces" and "SYNTHETIC" in builder.info.description
assert not [name for name in sys.modules if name.split(".")[0] == "tensorflow"]
"""


def test_what_is_built_is_what_the_source_gives(tmp_path):
    done = subprocess.run([sys.executable, "-c", BUILD, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    from emokd.data.tfds.painted_faces import Builder, PaintedFacesConfig

    config = PaintedFacesConfig(name="tiny", **COUNTS)
    builder = Builder(data_dir=tmp_path, config=config, file_format="array_record")
    examples = load(None, COUNTS)
    rows = {key: i for i, key in enumerate(examples.keys)}
    for split in ("train", "validation", "test"):
        records = builder.as_data_source(split=split)
        assert len(records) == COUNTS[split]
        for record in records:
            i = rows.pop(record["id"].decode())
            assert examples.splits[i] == split
            np.testing.assert_array_equal(record["image"], examples.inputs["image"](i))
            for name in ("expression", "identity", "scene", "valence_arousal"):
                np.testing.assert_array_equal(record[name], examples.columns[name][i])
    assert not rows
    assert builder.info.features["expression"].names == list(examples.classes["expression"])
