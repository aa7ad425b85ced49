"""A stored or trained network as a Student that JAX computes."""

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping

from emokd.data import reference
from emokd.data.reference import Reference
from emokd.inference.forward import Spec
from emokd.inference.jax_engine import JaxEngine
from emokd.inference.modalities import Modalities
from emokd.inference.signature import AFFECT, IMAGE, Input, Signature
from emokd.inference.student import Student
from emokd.models.multimodal import ModalitySpec, MultimodalSpec
from emokd.models.network import NetworkSpec, TrainedModel
from emokd.weights import model_folder
from emokd.weights.description import REMEDY
from emokd.weights.fields import Fields
from emokd.weights.seen_as import SeenAs


def load_folder(folder: pathlib.Path, *, batch_size: int, canvas: int, fit: str, face_crop: str, precision: str):
    """Loads a model folder, see `loading.load`.

    Raises:
      InputError: it is no model folder, or is damaged.
    """
    model, seen_as = model_folder.load_with_canvas(folder)
    seen_as = dataclasses.replace(
        seen_as,
        canvas=canvas or seen_as.canvas,
        fit=fit or seen_as.fit,
        face_crop=face_crop or seen_as.face_crop,
        precision=precision or seen_as.precision,
    )
    provenance = model_folder.provenance(folder)
    return create_student(
        model,
        seen_as,
        batch_size=batch_size,
        references=reference.from_json(provenance.get("references", {})),
        privileged=privileged_names(provenance, str(folder / model_folder.DESCRIPTION)),
        columns=column_names(provenance, str(folder / model_folder.DESCRIPTION)),
    )


def create_student(
    model: TrainedModel,
    seen_as: SeenAs,
    *,
    batch_size: int = 32,
    references: Mapping[str, Reference] | None = None,
    privileged: Collection[str] = (),
    columns: Mapping[str, tuple[str, ...]] | None = None,
) -> Student:
    """Makes a Student of a model in memory, computed by JAX.

    Args:
      model: the network and its weights.
      seen_as: how pictures become squares, and the precision.
      batch_size: the largest number of examples computed at once.
      references: the centre and unit of each array in training, by input (`data.reference`).
      privileged: names of modalities, and of their inputs, that existed only in training.
      columns: the names of each array's columns in training, by input, where they are known.
    """
    signature = signature_of(model.spec, columns)
    modalities = Modalities(signature.inputs, references or {}, privileged) if signature.multimodal else None
    computing = JaxEngine(model, batch_size=batch_size, precision=seen_as.precision, mirror=seen_as.mirror)
    return Student(signature, computing, seen_as, batch_size=batch_size, modalities=modalities)


def signature_of(spec: Spec, columns: Mapping[str, tuple[str, ...]] | None = None) -> Signature:
    """What a network takes and answers; a head without names has the classes "0", "1" and so on.

    Args:
      spec: the network.
      columns: the names of each array's columns, by input, where they are known.
    """
    heads = {
        name: () if name == AFFECT else tuple(spec.classes.get(name) or map(str, range(size)))
        for name, size in spec.heads.items()
    }
    if isinstance(spec, NetworkSpec):
        wanted = spec.preprocessing
        return Signature({IMAGE: Input(IMAGE, (wanted.size, wanted.size, wanted.channels), "picture")}, heads)
    inputs = {
        name: _input(modality, (columns or {}).get(modality.input, ())) for name, modality in spec.modalities.items()
    }
    return Signature(inputs, heads, True, _attends_to_batch(spec))


def _input(modality: ModalitySpec, columns: tuple[str, ...]) -> Input:
    shape = tuple(modality.shape)
    if modality.preprocessing is None:
        return Input(modality.input, shape, "array", columns if len(columns) == shape[-1] else ())
    return Input(modality.input, shape, "picture" if modality.input == IMAGE else "video")


def _attends_to_batch(spec: MultimodalSpec) -> bool:
    return spec.fusion_options.get("attend") == "batch"


def column_names(provenance: Mapping, source: str) -> dict[str, tuple[str, ...]]:
    """The names of each array's columns in training, by input; none in folders of earlier versions.

    Args:
      provenance: a model folder's.
      source: its file, for messages.

    Raises:
      InputError: they are no lists of texts.
    """
    columns = Fields(provenance.get("columns") or {}, source, "provenance.columns", REMEDY)
    return {name: columns.texts(name) for name in columns}


def privileged_names(provenance: Mapping, source: str) -> set[str]:
    """The modalities, and their inputs, that the training had and the model does not take.

    Args:
      provenance: a model folder's.
      source: its file, for messages.

    Raises:
      InputError: the configuration in it is damaged.
    """
    config = Fields(json.loads(provenance.get("config") or "{}"), source, "provenance.config", REMEDY)
    if "modalities" not in config:
        return set()
    modalities = config.inner("modalities")
    found = set()
    for name in modalities:
        section = modalities.inner(name)
        if "privileged" in section and section.flag("privileged"):
            found |= {name, section.text("input")}
    return found
