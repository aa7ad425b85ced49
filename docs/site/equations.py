r"""Equations become MathML, which browsers draw by themselves: no script, and nothing is fetched from elsewhere.

A page writes $...$ in a line and $$...$$ on lines of their own, as GitHub draws them too. The extension
`pymdownx.arithmatex` finds them, and mkdocs calls this function (`hooks` in mkdocs.yml) on what it has made of a page.
"""

import html
import re

from latex2mathml.converter import convert

# Room above and below, and a bar to scroll by on a phone.
STYLE = ' style="margin: 1.5em 0; padding: 0.5em 0; overflow-x: auto"'
FOUND = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content, page, config, files):
    """Replaces each equation in a page's HTML."""
    return FOUND.sub(_drawn, content)


def _drawn(match: re.Match) -> str:
    kind, opening, formula = match.groups()
    display = "block" if opening == "[" else "inline"
    style = STYLE if kind == "div" else ""
    return f"<{kind}{style}>{convert(html.unescape(formula).strip(), display=display)}</{kind}>"
