"""Any of emokd's sets of pictures (a manifest, FER+, FI, EmoSet, OASIS, ...) as a TFDS builder without TensorFlow.

    config = PicturesConfig(name="mine", source="manifest", directory="PICTURES")
    Builder(data_dir=FOLDER, config=config, file_format="array_record").download_and_prepare()

Then `config.data.source="tfds:pictures/mine"` and `config.data.dir=FOLDER` read it, and so does any other program that
reads TFDS. Nothing is downloaded. Pictures are stored as PNG, upright, in RGB and of full size.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from emokd.data import sources
from emokd.data.examples import Examples
from emokd.data.tfds.png import png
from emokd.errors import InputError

WHOLE = "train"
"""The split of a set that prescribes none; `config.data.split` divides a set of one split."""


@dataclasses.dataclass(kw_only=True)
class PicturesConfig(tfds.core.BuilderConfig):
    """What `emokd.data.sources.load` takes."""

    source: str
    directory: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds pictures/NAME: features `id`, `image`, the set's labels, `valence_arousal` and `group`, where it has them.

    Raises:
      InputError: the set is wrong, its examples are no pictures, or it has votes.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _load(self) -> Examples:
        config = self.builder_config
        examples = sources.load(config.source, config.directory, config.options)
        if list(examples.inputs) != ["image"]:
            raise InputError(
                f"{examples.name} has the inputs {', '.join(examples.inputs)}; this builder takes pictures."
            )
        if "votes" in examples.columns:
            raise InputError(
                f"{examples.name} has votes, for which TFDS has no kind of label. Give the option that makes classes "
                "of them, such as protocol='majority' of ferplus."
            )
        return examples

    def _info(self) -> tfds.core.DatasetInfo:
        examples = self._load()
        features: dict[str, Any] = {"id": tfds.features.Text(), "image": tfds.features.Image(encoding_format="png")}
        features |= {name: tfds.features.ClassLabel(names=names) for name, names in examples.classes.items()}
        if "valence_arousal" in examples.columns:
            features["valence_arousal"] = tfds.features.Tensor(shape=(2,), dtype=np.float32)
        if examples.groups is not None:
            features["group"] = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self, description=examples.name, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        examples = self._load()
        splits = np.full(len(examples), WHOLE) if examples.splits is None else np.asarray(examples.splits)
        return {
            str(name): self._generate_examples(examples, np.flatnonzero(splits == name)) for name in np.unique(splits)
        }

    def _generate_examples(self, examples: Examples, places: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
        for i in places.tolist():
            labels = {name: int(examples.columns[name][i]) for name in examples.classes}
            row = {"id": examples.keys[i], "image": png(examples.inputs["image"](i)), **labels}
            if "valence_arousal" in examples.columns:
                row["valence_arousal"] = examples.columns["valence_arousal"][i]
            if examples.groups is not None:
                row["group"] = str(examples.groups[i])
            yield examples.keys[i], row
