"""What the scripts of this folder share: their flags, sides that are timed in turn, and the page.

A script has `measure(Settings) -> Page` and ends with `launch(measure)`. Importing one defines no flags.
"""

import dataclasses
import importlib.metadata
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from absl import flags, logging

from emokd.benchmarking.timing import Rule, Timing, interleave, ratio
from emokd.files import write_whole
from emokd.jobs.command import run
from emokd.reporting.provenance import commit, provenance
from emokd.reporting.table import Table

REST = 0.02
"""Seconds before each call: threads of one framework that spin after their work would slow the next one."""

PACKAGES = ("torch", "geomloss", "onnxruntime", "pillow", "simplejpeg", "grain", "ott-jax")

PICTURES = ("eager", "eager channels_last", "compiled channels_last")
"""Variants of a PyTorch side whose networks see pictures."""
ARRAYS = ("eager", "compiled")
"""Variants of any other PyTorch side."""

Call = TypeVar("Call", bound=Callable[[], Any])


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the flags say.

    Attributes:
      rule: warm-up and rounds.
      small: sizes at which the script runs in seconds and says nothing about speed.
      compiled: whether torch.compile is measured; it may take minutes to compile.
      rest: seconds between calls.
    """

    rule: Rule
    small: bool
    compiled: bool
    rest: float

    def text(self) -> str:
        """How times are taken, in words."""
        return f"{self.rule.text()}; sides take turns, {1e3 * self.rest:.0f} ms apart"


@dataclasses.dataclass(frozen=True)
class Page:
    """What a script found.

    Attributes:
      title: the page's heading.
      tables: in order.
      facts: further lines below the heading.
    """

    title: str
    tables: Sequence[Table]
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def markdown(self) -> str:
        """The page: where the numbers come from, and the tables."""
        facts = {**provenance(), "packages": packages(), "threads": threads(), **self.facts}
        lines = [
            f"Command: `{facts.pop('command')}`",
            *(f"{name.capitalize()}: {text}" for name, text in facts.items()),
        ]
        tables = [table.markdown() for table in self.tables]
        return "\n\n".join([f"# {self.title}", "\n".join(f"- {line}" for line in lines), *tables]) + "\n"


def launch(measure: Callable[[Settings], Page], *, steps: int = 20, rest: float = REST) -> None:
    """Runs a script's `measure` as a command.

    Args:
      measure: settings to a page.
      steps: default of --steps.
      rest: seconds between calls.
    """
    given = {
        "steps": flags.DEFINE_integer("steps", steps, "Rounds that are timed."),
        "warmup": flags.DEFINE_integer("warmup", 3, "Rounds before them."),
        "small": flags.DEFINE_bool("small", False, "Tiny sizes: shows that the script works, measures nothing."),
        "compiled": flags.DEFINE_bool("compiled", True, "Also measure torch.compile, which may compile for minutes."),
        "page": flags.DEFINE_string("page", None, "Write the page to this file too."),
    }

    def main(argv: list[str]) -> None:
        del argv
        commit()  # before anyone changes the checkout; it is remembered
        values = {name: flag.value for name, flag in given.items()}
        settings = Settings(Rule(values["warmup"], values["steps"]), values["small"], values["compiled"], rest)
        page = measure(settings)
        facts = {"rule": settings.text(), **page.facts}
        if settings.small:
            facts = {"small": "tiny sizes, which measure nothing", **facts}
        page = dataclasses.replace(page, facts=facts)
        text = page.markdown()
        print(text, end="")
        if values["page"]:
            file = pathlib.Path(values["page"])
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, text)

    run(main)


class Comparison:
    """Sides that do the same work, timed in turn."""

    def __init__(self):
        self.calls: dict[str, Callable[[], Any]] = {}
        self.reasons: dict[str, str] = {}
        self.ready: dict[str, float] = {}
        self.order: list[str] = []

    def add(self, name: str, make: Callable[[], Call]) -> Call:
        """Adds a side: `make()` gives the call, which is made once, so that it compiles, and returned.

        A call dispatches work and returns its JAX arrays, or returns when the work is done.
        """
        logging.info("Preparing %s.", name)
        begun = time.perf_counter()
        call = make()
        jax.block_until_ready(call())
        self.ready[name], self.calls[name] = time.perf_counter() - begun, call
        self.order.append(name)
        return call

    def attempt(self, name: str, make: Callable[[], Callable[[], Any]]) -> None:
        """Adds a side that may fail here: what is not installed, or cannot be compiled; the page then says why."""
        try:
            self.add(name, make)
        except Exception as error:  # torch.compile raises whatever its compilers raise
            logging.warning("%s is not measured: %s", name, error)
            self.leave_out(name, f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}")

    def leave_out(self, name: str, reason: str) -> None:
        """Names a side that is not measured, and why."""
        self.reasons[name] = reason
        self.order.append(name)

    def attempt_variants(
        self, name: str, make: Callable[[str], Callable[[], Any]], variants: Sequence[str], compiled: bool
    ) -> None:
        """Adds each variant of a PyTorch side, as "name, variant"."""
        for variant in variants:
            if "compiled" in variant and not compiled:
                self.leave_out(f"{name}, {variant}", "--nocompiled")
            else:
                self.attempt(f"{name}, {variant}", lambda variant=variant: make(variant))

    def missing(self, name: str) -> str:
        """What the page says of a side that was left out."""
        return f"{name} (not measured: {self.reasons[name]})"

    def measure(self, settings: Settings) -> dict[str, Timing]:
        """Times all sides in one interleaved run."""
        return interleave(self.calls, settings.rule, rest=settings.rest)

    def table(
        self,
        times: Mapping[str, Timing],
        base: str,
        title: str,
        *,
        names: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Table:
        """Medians of the sides (those in `names`, or all) and their ratios to `base`, round by round."""
        rows = []
        for name in names or self.order:
            if name in self.reasons:
                rows.append([self.missing(name), *["-"] * 4])
                continue
            low, high = times[name].quartiles
            ready = f"{self.ready[name]:.1f}" if name in self.ready else "-"
            quartiles = f"{1e3 * low:.4g} to {1e3 * high:.4g}"
            rows.append(
                [name, f"{1e3 * times[name].median:.4g}", quartiles, f"{ratio(times[name], times[base]):.3f}", ready]
            )
        return Table(["side", "ms", "quartiles ms", f"over {base}", "ready after s"], rows, title=title, notes=notes)


def total(times: Mapping[str, Timing], names: Sequence[str]) -> Timing:
    """The sum of several calls, round by round."""
    return Timing(tuple(map(sum, zip(*(times[name].seconds for name in names), strict=True))))


def on_accelerator() -> bool:
    """Whether JAX computes on something else than the CPU."""
    return jax.default_backend() != "cpu"


def precision() -> str:
    """What the networks of all sides compute in."""
    return "bfloat16, parameters float32" if on_accelerator() else "float32"


def packages() -> str:
    """Versions of what the other sides are made of."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def threads() -> str:
    """How many threads each framework computes on."""
    try:
        import torch

        theirs = f"PyTorch {torch.get_num_threads()}" + (" and CUDA" if torch.cuda.is_available() else "")
    except ImportError:
        theirs = "PyTorch not installed"
    return f"JAX on {jax.devices()} with all cores of the machine line, {theirs}"
