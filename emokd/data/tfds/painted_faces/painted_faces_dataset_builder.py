"""Painted faces (synthetic) as a TensorFlow Datasets builder that runs without TensorFlow.

    builder = Builder(data_dir=folder, config="64", file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source(split="train")

Only `file_format="array_record"` and `as_data_source` work without TensorFlow; nothing is downloaded.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from emokd.data.painter import paint as painter
from emokd.data.painter.state import EXPRESSIONS, IDENTITIES, SCENES
from emokd.data.sources import painter as source
from emokd.data.tfds.png import png

_DESCRIPTION = """
SYNTHETIC pictures of faces, painted by a program: no person is depicted. Each shows one of eight expressions with a
valence and an arousal, one of 16 invented identities, and one of eight background scenes. Nothing learnt or measured
on these pictures is evidence about people, or for a claim of any paper.
"""


@dataclasses.dataclass(kw_only=True)
class PaintedFacesConfig(tfds.core.BuilderConfig):
    """The options of `emokd.data.sources.painter.load`: size of the pictures, examples by split, seed."""

    name: str = "64"
    description: str = "SYNTHETIC painted faces."
    size: int = 64
    train: int = 2048
    validation: int = 512
    test: int = 512
    seed: int = 0


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds painted_faces (synthetic)."""

    VERSION = tfds.core.Version(painter.VERSION)
    RELEASE_NOTES = {painter.VERSION: "First painter."}
    BUILDER_CONFIGS = [PaintedFacesConfig(name=str(size), size=size) for size in (64, 48, 96)]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(doc="The example's key."),
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "expression": tfds.features.ClassLabel(names=EXPRESSIONS),
                    "valence_arousal": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                    "identity": tfds.features.ClassLabel(names=IDENTITIES),
                    "scene": tfds.features.ClassLabel(names=SCENES),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        counts = {name: getattr(self.builder_config, name) for name in ("train", "validation", "test")}
        return {name: self._generate_examples(name) for name, count in counts.items() if count}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        options = {name: getattr(config, name) for name in ("size", "train", "validation", "test", "seed")}
        examples = source.load(None, options)
        for i in np.flatnonzero(np.asarray(examples.splits) == split).tolist():
            columns = {name: values[i] for name, values in examples.columns.items()}
            labels = {name: int(columns[name]) for name in examples.classes}
            yield (
                examples.keys[i],
                {
                    "id": examples.keys[i],
                    "image": png(examples.inputs["image"](i)),
                    "valence_arousal": columns["valence_arousal"],
                    **labels,
                },
            )
