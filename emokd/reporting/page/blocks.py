"""What a section of the page is made of; `templates/blocks.html` draws each kind."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from emokd.reporting.drawing.svg import Drawing
from emokd.reporting.table import Table

FOLDED_ROWS = 12
"""A table with more rows than this folds, unless it says otherwise."""


class Block:
    """A part of a section; `kind` names the template's macro."""

    kind: ClassVar[str]


@dataclasses.dataclass(frozen=True)
class Text(Block):
    """A paragraph; `style` is "", "quiet", "missing", "synthetic", "verdict" or "warning"."""

    text: str
    style: str = ""
    kind = "text"


@dataclasses.dataclass(frozen=True)
class Heading(Block):
    """A heading below the section's own."""

    text: str
    kind = "heading"


@dataclasses.dataclass(frozen=True)
class Items(Block):
    """A list of sentences."""

    texts: Sequence[str]
    kind = "items"


@dataclasses.dataclass(frozen=True)
class Grid(Block):
    """A table.

    Attributes:
      table: its texts.
      label: what the table is, for those who cannot see it, where it has no title.
      shares: how strongly each cell after the first is shaded, 0 to 1, or None; None shades nothing.
      best: cells (row, column) that are set off.
      folded: whether it is folded; None where that depends on its length.
      summary: the words to unfold it by.
    """

    table: Table
    label: str = ""
    shares: Sequence[Sequence[float | None]] | None = None
    best: frozenset[tuple[int, int]] = frozenset()
    folded: bool | None = None
    summary: str = ""
    kind = "grid"

    @property
    def folds(self) -> bool:
        """Whether it is folded."""
        return len(self.table.rows) > FOLDED_ROWS if self.folded is None else self.folded

    def share(self, row: int, column: int) -> float | None:
        """How strongly a cell is shaded."""
        return self.shares[row][column - 1] if self.shares is not None and column else None


@dataclasses.dataclass(frozen=True, eq=False)
class Panels(Block):
    """Drawings side by side, with what their colours and shapes mean."""

    drawings: Sequence[Drawing]
    keys: Sequence[tuple[str, str]] = ()
    """(style, name)"""
    kind = "panels"


@dataclasses.dataclass(frozen=True)
class Code(Block):
    """Lines to copy."""

    lines: str
    label: str
    kind = "code"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture of the data: a JPEG as base64, what is in it, and what is said below it."""

    jpeg: str
    description: str
    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Pictures(Block):
    """Pictures of the data."""

    pictures: Sequence[Picture]
    kind = "pictures"
