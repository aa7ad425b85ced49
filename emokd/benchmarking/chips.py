"""TPUs by their maker's figures, for one device of the compiler: a chip, of v2, v3 and v4 one of its two cores."""

import dataclasses

SOURCE = (
    "cloud.google.com/tpu/docs (a page for each version: peak, memory, its bandwidth, interconnect); links of v2 and "
    "v3: Jouppi et al., A Domain-Specific Supercomputer for Training Deep Neural Networks, CACM 2020"
)
"""Where `CHIPS` comes from. The clock is no published figure of all of them, see `Chip.clock`."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
      flops: bfloat16 matrix peak, a second.
      clock: hertz; the peak over the multiply-accumulates that its matrix units do in a cycle. [ours]
      memory: bytes.
      bandwidth: bytes of memory a second.
      link: bytes a second over one link of the interconnect, in one direction.
      cores: devices on one chip, which share its links.
    """

    flops: float
    clock: float
    memory: float
    bandwidth: float
    link: float
    cores: int = 1


def _chip(
    teraflops: float, units: int, side: int, gibibytes: float, gigabytes: float, link: float, cores: int = 1
) -> Chip:
    clock = teraflops * 1e12 / (2 * units * side**2)
    return Chip(teraflops * 1e12, clock, gibibytes * 2**30, gigabytes * 1e9, link * 1e9, cores)


CHIPS = {
    "v2": _chip(23, 1, 128, 8, 350, 62, cores=2),
    "v3": _chip(61.5, 2, 128, 16, 450, 82, cores=2),
    "v4": _chip(137.5, 4, 128, 16, 614, 50, cores=2),
    "v5e": _chip(197, 4, 128, 16, 819, 50),
    "v5p": _chip(459, 8, 128, 95, 2765, 100),
    # Two units by its page, whose peak would then take 3.5 GHz: counted as four, at the clock of v5p. [ours]
    "v6e": _chip(918, 4, 256, 32, 1640, 100),
}
"""By the name that a target begins with."""
