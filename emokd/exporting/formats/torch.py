"""A PyTorch state dict under torchvision's, timm's or the authors' names, run in that library where installed."""

import dataclasses
import io
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Array, Float

from emokd.errors import InputError
from emokd.exporting.formats.format import Batch, Format, Request, Written, missing
from emokd.exporting.student import Student
from emokd.inference.forward import answers
from emokd.inference.signature import IMAGE
from emokd.models.network import NetworkSpec, TrainedModel, attach_heads, functional
from emokd.recipes.common.views import average_affect
from emokd.signals import Signals
from emokd.weights.importing import DEFAULT_HEAD
from emokd.weights.inverse import find_names, from_foreign, head_rows, to_foreign

SAFETENSORS = ".safetensors"
_LIBRARIES = ("torchvision", "timm")


def _write(request: Request) -> Written:
    model = _picture_network(request.student)
    names = find_names(model.spec)
    arrays = to_foreign(model, names)
    notes = {
        "names": names.label or "its authors",
        "backbone": model.spec.backbone,
        "options": dict(model.spec.options),
        "answers": "softmax of each classifying output's rows; valence and arousal are clipped to [-1, 1]",
        "rows": {name: [rows.start, rows.stop] for name, rows in head_rows(model.spec.heads).items()},
    }
    if request.suffix == SAFETENSORS:
        return Written(safetensors.numpy.save(arrays, metadata={"format": "pt"}), notes)
    try:
        import torch
    except ImportError as error:
        raise missing(f"A {request.suffix} file is written by PyTorch, which", error, "torch") from error
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, buffer)
    return Written(buffer.getvalue(), notes)


def _picture_network(student: Student) -> TrainedModel:
    if not isinstance(student.model.spec, NetworkSpec):
        raise InputError(
            "The format torch is for networks of one picture, and this model takes "
            f"{', '.join(student.inputs)}. Export it with --format=onnx."
        )
    return student.model


def read(content: bytes, suffix: str) -> dict[str, np.ndarray]:
    """The arrays of a written file by name; nothing in it is executed."""
    if suffix == SAFETENSORS:
        return safetensors.numpy.load(content)
    import torch

    return {name: value.numpy() for name, value in torch.load(io.BytesIO(content), weights_only=True).items()}


def _open(student: Student, content: bytes, suffix: str) -> Any:
    arrays, spec = read(content, suffix), student.model.spec
    try:
        create = _find_network(spec)
    except ImportError:
        create = None
    if create is None:
        return ReadBack(student, arrays)
    return InPytorch(student, create, arrays)


@dataclasses.dataclass(frozen=True)
class Creator:
    """How an independent library makes the network.

    Attributes:
      library: its name.
      make: makes the network, with the joined head.
      rename: from the file's names to the library's.
    """

    library: str
    make: Callable[[], Any]
    rename: Callable[[dict[str, Any], Any], dict[str, Any]] = lambda state, network: state


def _find_network(spec: NetworkSpec) -> Creator | None:
    """The network of torchvision or timm that the file fits; None where neither has it, or none of these stages.

    Raises:
      ImportError: the library that has it, or PyTorch, is not installed.
    """
    import torch  # noqa: F401

    label, outputs = find_names(spec).label, sum(spec.heads.values())
    if spec.preprocessing.channels != 3 or spec.options.keys() & {"depths", "widths"}:
        return None
    if spec.backbone in ("resnet18", "resnet50", "mobilenet_v2") or label == "torchvision":
        import torchvision

        options = {"width_mult": spec.options["width"]} if "width" in spec.options else {}
        return Creator(
            "torchvision", lambda: getattr(torchvision.models, spec.backbone)(num_classes=outputs, **options)
        )
    if label == "timm":
        import timm

        prefix = "" if spec.options.get("style") == "pytorch" else "tf_"
        return Creator("timm", lambda: timm.create_model(f"{prefix}{spec.backbone}", num_classes=outputs))
    if spec.backbone.startswith("efficientformer"):
        import timm

        return Creator("timm", lambda: timm.create_model(spec.backbone, num_classes=outputs), _timms_names)
    return None


def _timms_names(state: dict[str, Any], network: Any) -> dict[str, Any]:
    """timm's renaming of the authors' EfficientFormer, which counts stages as it meets them: it wants their order."""
    from timm.models.efficientformer import checkpoint_filter_fn

    def place(name: str) -> tuple[int, bool]:
        parts = name.split(".")
        return int(parts[1]) if parts[0] == "network" else -1, parts[2:] != ["proj", "weight"]

    return checkpoint_filter_fn({name: state[name] for name in sorted(state, key=place)}, network)


class InPytorch:
    """The file in the library's own network, loaded strictly.

    Args:
      student: the exported model.
      creator: of the network.
      arrays: the file's, by name.

    Raises:
      InputError: the network does not take the file.
    """

    def __init__(self, student: Student, creator: Creator, arrays: Mapping[str, np.ndarray]):
        import torch

        self.runtime = f"PyTorch, the network of {creator.library}"
        self._student, self._torch = student, torch
        self._network = creator.make().eval()
        # Copies, because arrays that lie in a file's bytes cannot be written to, which PyTorch warns of.
        state = creator.rename({name: torch.tensor(array) for name, array in arrays.items()}, self._network)
        try:
            self._network.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(
                f"{creator.library}'s network does not take the exported file, and nothing was written. This is a "
                f"fault of the export: please report it with the model's model.json. {error}"
            ) from error

    def __call__(self, arrays: Batch) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """As `Runner`."""
        signals = self._look(arrays[IMAGE])
        if self._student.seen_as.mirror:
            signals = average_affect(signals, self._look(np.ascontiguousarray(arrays[IMAGE][..., ::-1])))
        return jax.device_get(answers(self._student.model.spec, signals))

    def _look(self, pictures: np.ndarray) -> Signals:
        with self._torch.inference_mode():
            outputs = self._network(self._torch.from_numpy(pictures)).numpy()
        rows = head_rows(self._student.model.spec.heads)
        return attach_heads(Signals(), {name: jnp.asarray(outputs[:, part]) for name, part in rows.items()})


class ReadBack:
    """The file read back by emokd's importer and computed in JAX: the check where no PyTorch network is at hand.

    Args:
      student: the exported model.
      arrays: the file's, by name.

    Raises:
      InputError: the file does not hold the network's arrays under the expected names.
    """

    runtime = "JAX, read back by emokd's importer (torchvision or timm is not installed, or lacks the network)"

    def __init__(self, student: Student, arrays: Mapping[str, np.ndarray]):
        spec = student.model.spec
        model = from_foreign(arrays, spec, find_names(spec), "The exported file")
        network, rows = functional(model.spec), head_rows(spec.heads)

        def look(pictures: Array) -> Signals:
            signals = network(model.params, model.stats, pictures)[0]
            if DEFAULT_HEAD not in model.spec.heads:
                return signals
            joined = signals.intermediates[DEFAULT_HEAD]
            return attach_heads(Signals(), {name: joined[:, part] for name, part in rows.items()})

        def run(pictures: Array) -> dict[str, Array]:
            signals = look(pictures)
            if student.seen_as.mirror:
                signals = average_affect(signals, look(jnp.flip(pictures, -2)))
            return answers(spec, signals)

        self._run = jax.jit(run)

    def __call__(self, arrays: Batch) -> Mapping[str, Float[np.ndarray, "B _"]]:
        """As `Runner`."""
        return jax.device_get(self._run(np.asarray(arrays[IMAGE]).transpose(0, 2, 3, 1)))


FORMAT = Format(
    name="torch",
    file="model.safetensors",
    suffixes=(SAFETENSORS, ".pth", ".pt"),
    library="pytorch",
    precisions=("float32",),
    channels_first=True,
    takes_raw=False,
    write=_write,
    open=_open,
)
