"""Any of emokd's sets of pictures as a TensorFlow Datasets builder."""

from emokd.data.tfds.pictures.pictures_dataset_builder import Builder, PicturesConfig

__all__ = ["Builder", "PicturesConfig"]
