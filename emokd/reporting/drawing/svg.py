"""SVG that stands in a page: it takes its colours from the page's style, and has a text in place of the picture."""

from typing import Any

from markupsafe import Markup, escape

COLOURS = 8
"""Colours of series in the page's style, the classes s0 to s7."""


def colour(index: int) -> str:
    """The style class of a series; they repeat."""
    return f"s{index % COLOURS}"


def number(value: float) -> str:
    """A coordinate: two decimals are a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def shortened(name: str, limit: int = 24) -> str:
    """A name of at most `limit` characters: of a longer one its beginning and its end."""
    return name if len(name) <= limit else f"{name[: limit // 2]}...{name[-(limit // 2 - 3) :]}"


def element(tag: str, *inside: Any, **attributes: Any) -> Markup:
    """An element; every text and attribute is escaped, and an underscore in an attribute's name is a hyphen."""
    given = Markup("").join(
        Markup(' {}="{}"').format(
            name.rstrip("_").replace("_", "-"), number(value) if isinstance(value, float) else value
        )
        for name, value in attributes.items()
    )
    content = Markup("").join(escape(part) for part in inside)
    return Markup("<{0}{1}>{2}</{0}>").format(tag, given, content)


class Drawing:
    """A picture of `width` x `height` units, with the text that says what is in it."""

    def __init__(self, width: float, height: float, description: str):
        self.width, self.height, self.description = width, height, description
        self._parts: list[Markup] = []

    def add(self, tag: str, *inside: Any, **attributes: Any) -> None:
        """Adds an element on top of the others, see `element`."""
        self._parts.append(element(tag, *inside, **attributes))

    def text(self, x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> None:
        """Adds a line of text whose baseline begins (or ends, or has its middle) at a place."""
        self.add("text", text, x=float(x), y=float(y), class_=class_, text_anchor=anchor)

    def __html__(self) -> Markup:
        """The element `svg`."""
        return element(
            "svg",
            Markup("\n").join(self._parts),
            viewBox=f"0 0 {number(self.width)} {number(self.height)}",
            style=f"--width: {number(self.width)}px",
            role="img",
            aria_label=self.description,
        )
