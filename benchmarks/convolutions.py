"""A network's convolutions one by one: as XLA runs ours, and as PyTorch runs its own in channels_last.

    python benchmarks/convolutions.py [--steps=10] [--small] [--page=FILE]

The floor of a network on a backend: what a step would take if everything but its convolutions were free. Layers and
shapes are those that PyTorch's network meets; each distinct one is timed alone, forward and (in training) backward with
the gradients of weights and inputs, and counts as often as it occurs. The whole step is timed in the same run.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import supervised_step
import torch_side
from jaxtyping import Array
from side_by_side import REST, Comparison, Page, Settings, launch
from torch import Tensor, nn, ops

from emokd.benchmarking.timing import Timing
from emokd.models.convolution import convolution
from emokd.reporting.table import Table

VARIANT = "eager channels_last"
OURS, THEIRS = "emokd", "PyTorch"


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution and the pictures it meets.

    Attributes:
      shape: of the inputs, channels last.
      kernel: height, width, channels of a group, outputs.
      stride: in both directions.
      padding: on every side.
      groups: into which channels are divided.
    """

    shape: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    padding: int
    groups: int

    @property
    def kind(self) -> str:
        """Its kind, as the tables name it."""
        if self.groups > 1:
            return "depthwise"
        if self.shape[3] <= 4:
            return "first"
        return "1 x 1" if self.kernel[:2] == (1, 1) else f"{self.kernel[0]} x {self.kernel[1]}"

    @property
    def first(self) -> bool:
        """Whether it sees pictures, which need no gradient."""
        return self.shape[3] == 3

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of its results."""
        height, width = (
            (side + 2 * self.padding - size) // self.stride + 1
            for side, size in zip(self.shape[1:3], self.kernel[:2], strict=True)
        )
        return (self.shape[0], height, width, self.kernel[3])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of its forward pass."""
        return int(np.prod(self.output) * np.prod(self.kernel[:3]))

    def arrays(self) -> tuple[Array, Array, Array]:
        """Random inputs, kernel and cotangent."""
        keys = jax.random.split(jax.random.key(0), 3)
        return tuple(map(jax.random.normal, keys, (self.shape, self.kernel, self.output)))


def layers_of(network: nn.Module, pictures: Tensor) -> dict[Layer, int]:
    """How often each distinct convolution occurs in a forward pass."""
    found: collections.Counter[Layer] = collections.Counter()

    def record(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        (seen,), (height, width) = inputs, module.kernel_size
        found[
            Layer(
                (seen.shape[0], *seen.shape[2:], seen.shape[1]),
                (height, width, module.in_channels // module.groups, module.out_channels),
                module.stride[0],
                int(module.padding[0]),
                module.groups,
            )
        ] += 1

    hooks = [m.register_forward_hook(record) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(pictures)
    for hook in hooks:
        hook.remove()
    return dict(found)


def create_ours(layer: Layer, backward: bool) -> Callable[[], Array]:
    """Ours on one device: the forward pass, or both gradients."""
    inputs, kernel, cotangent = layer.arrays()
    pads = [(layer.padding, layer.padding)] * 2
    options = {"feature_group_count": layer.groups, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def forward(inputs, kernel):
        return convolution(inputs, kernel, (layer.stride, layer.stride), pads, **options)

    def gradients(inputs, kernel, cotangent):
        by_inputs, by_kernel = jax.vjp(forward, inputs, kernel)[1](cotangent)
        return by_kernel if layer.first else (by_inputs, by_kernel)

    if backward:
        return functools.partial(
            jax.jit(gradients).lower(inputs, kernel, cotangent).compile(), inputs, kernel, cotangent
        )
    return functools.partial(jax.jit(forward).lower(inputs, kernel).compile(), inputs, kernel)


def create_theirs(layer: Layer, backward: bool) -> Callable[[], None]:
    """PyTorch's, in channels_last."""
    inputs, kernel, cotangent = layer.arrays()
    inputs, cotangent = (torch_side.tensor(values, VARIANT) for values in (inputs, cotangent))
    # An array of four axes would be taken for pictures; these are the axes out, in, height, width.
    kernel = torch_side.tensor(jnp.transpose(kernel, (3, 0, 1, 2)), VARIANT)
    geometry = ([layer.stride] * 2, [layer.padding] * 2, [1, 1], False, [0, 0], layer.groups)

    def call() -> None:
        if backward:
            wanted = [not layer.first, True, False]
            ops.aten.convolution_backward(cotangent, inputs, kernel, None, *geometry, wanted)
        else:
            ops.aten.convolution(inputs, kernel, None, *geometry)
        torch_side.finish()

    return call


def measure_layers(layers: Mapping[Layer, int], settings: Settings, passes: tuple[str, ...]) -> dict[tuple, Timing]:
    """Seconds of every (layer, pass, side), all in one interleaved run."""
    sides, keys = Comparison(), {}
    for number, layer in enumerate(layers):
        for which in passes:
            for side, make in ((OURS, create_ours), (THEIRS, create_theirs)):
                name = f"{number} {which} {side}"
                keys[name] = (layer, which, side)
                sides.add(name, functools.partial(make, layer, which == "backward"))
    times = sides.measure(dataclasses.replace(settings, rest=min(settings.rest, REST / 4)))
    return {keys[name]: timing for name, timing in times.items()}


def weighted(times: Mapping[tuple, Timing], layers: Mapping[Layer, int], which: str, side: str) -> Timing:
    """The layers' seconds, each as often as it occurs, round by round."""
    rounds = zip(*(times[layer, which, side].seconds for layer in layers), strict=True)
    return Timing(tuple(sum(n * s for n, s in zip(layers.values(), found, strict=True)) for found in rounds))


def table(
    title: str, layers: Mapping[Layer, int], times: Mapping[tuple, Timing], passes: tuple[str, ...], whole: dict
) -> Table:
    """Milliseconds by kind of convolution, in all, and of the whole network."""
    groups: dict[str, dict[Layer, int]] = {}
    for layer, count in layers.items():
        groups.setdefault(layer.kind, {})[layer] = count
    rows = []
    for kind, members in {**groups, "all convolutions": dict(layers)}.items():
        row = [kind, str(sum(members.values())), f"{sum(n * layer.macs for layer, n in members.items()) / 1e6:.1f}"]
        for which in passes:
            ours, theirs = (weighted(times, members, which, side).median for side in (OURS, THEIRS))
            row += [f"{1e3 * ours:.4g}", f"{1e3 * theirs:.4g}", f"{ours / theirs:.2f}"]
        rows.append(row)
    ours, theirs = (whole[side].median for side in (OURS, THEIRS))
    floor, other = (sum(weighted(times, layers, p, side).median for p in passes) for side in (OURS, THEIRS))
    columns = [text for which in passes for text in (f"{which} ms", f"{THEIRS}'s", "ratio")]
    notes = [
        f"The whole: {OURS} {1e3 * ours:.4g} ms, of which convolutions alone {floor / ours:.0%}; {THEIRS} "
        f"{1e3 * theirs:.4g} ms, of which {other / theirs:.0%}.",
        f"With everything else for nothing, {OURS} would take {floor / theirs:.2f} times {THEIRS}'s whole.",
    ]
    return Table(["convolutions", "number", "M MACs", *columns], rows, title=title, notes=notes)


def training_table(backbone: str, size: int, batch_size: int, settings: Settings) -> Table:
    """A training step of the supervised recipe."""
    import torch_networks

    step = supervised_step.create_step(backbone, size, batch_size)
    network = torch_networks.Network(backbone, {"expression": 8})
    layers = layers_of(network, torch_side.tensor(step.batch["pixels"]))
    whole = Comparison()
    whole.add(OURS, lambda: step)
    whole.add(THEIRS, functools.partial(supervised_step.create_torch_call, step, backbone, VARIANT))
    passes = ("forward", "backward")
    title = f"{backbone}, training, batch of {batch_size} at {size} x {size}"
    return table(title, layers, measure_layers(layers, settings, passes), passes, whole.measure(settings))


def inference_table(batch_size: int, size: int, settings: Settings) -> Table:
    """EmoNet's forward pass."""
    import inference
    from torch_emonet import EmoNet

    name = f"emonet@{size}"
    layers = layers_of(EmoNet(8).eval(), torch_side.tensor(np.zeros((batch_size, size, size, 3), np.float32)))
    whole = Comparison()
    whole.add(OURS, functools.partial(inference.create_call, name, batch_size))
    whole.add(THEIRS, functools.partial(inference.create_torch_call, "emonet", batch_size, VARIANT))
    passes = ("forward",)
    title = f"EmoNet, inference, batch of {batch_size} at {size} x {size}"
    return table(title, layers, measure_layers(layers, settings, passes), passes, whole.measure(settings))


def measure(settings: Settings) -> Page:
    """Training of the supervised networks, inference of EmoNet."""
    size, batch_size = (32, 2) if settings.small else (224, 8)
    tables = [training_table(name, size, batch_size, settings) for name in supervised_step.NETWORKS]
    if not settings.small:
        tables += [inference_table(batch, 256, settings) for batch in (1, 8)]
    return Page("Convolutions", tables, {"precision": "float32"})


if __name__ == "__main__":
    launch(measure, steps=10)
