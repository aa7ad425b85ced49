"""A table that reads well on a terminal and in Markdown; `page` has its HTML."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
      header: the columns' names.
      rows: as many cells each.
      title: shown above the table; may be empty.
      notes: sentences shown below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """A Markdown table with aligned columns: the first to the left, the others, numbers, to the right."""
        cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (self.header, *self.rows)]
        widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(self.header))]

        def line(row: Sequence[str]) -> str:
            padded = [
                cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        rule = "|".join("-" * (w + 1) + ":" if i else "-" * (w + 2) for i, w in enumerate(widths))
        blocks = [f"**{self.title}**"] if self.title else []
        blocks.append("\n".join([line(cells[0]), f"|{rule}|", *(line(row) for row in cells[1:])]))
        return "\n\n".join([*blocks, *self.notes])


def count_text(number: float | None) -> str:
    """A large count to read: 2350000 as "2.35 M"; "-" for None."""
    if number is None:
        return "-"
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def byte_text(size: float | None) -> str:
    """A size to read: 1536 as "1.5 KiB"; "-" for None."""
    if size is None:
        return "-"
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size / 2**power:.4g} {unit}"
    return f"{size:.0f} B"
