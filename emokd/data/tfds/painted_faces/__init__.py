"""Painted faces (synthetic) as a TensorFlow Datasets builder."""

from emokd.data.tfds.painted_faces.painted_faces_dataset_builder import Builder, PaintedFacesConfig

__all__ = ["Builder", "PaintedFacesConfig"]
