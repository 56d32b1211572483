"""Parts that pages share: sections, cards of a picture and its numbers, tables, legends.

In: titles, texts, elements. Out: elements.
Must not know: what a page is about. Rule: whatever a picture shows stands in a table as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from shelftide.markup import tag

_MOST_ROWS = 200


def section(title: str, *content: Element) -> Element:
    """A part of a page under its title."""
    return tag("section", tag("h2", title), *content)


def card(title: str, what: str, chart: Element, table: Element) -> Element:
    """A picture with what it shows in words and numbers."""
    return tag("figure", tag("h3", title), tag("figcaption", what), chart, details("Numbers", table))


def details(summary: str, content: Element) -> Element:
    """What shows when asked for."""
    return tag("details", tag("summary", summary), content)


def table(heads: Sequence[str], rows: Sequence[Sequence[str | Element]], kind: str = "numbers") -> Element:
    """A table whose first column names the rows."""
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows[:_MOST_ROWS]
    ]
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    parts = [tag("table", head, tag("tbody", *body), class_=kind)]
    if len(rows) > _MOST_ROWS:
        parts.append(tag("p", f"The first {_MOST_ROWS} of {len(rows):,}.", class_="soft"))
    return tag("div", *parts, class_="scroll")


def legend(*entries: tuple[str, str]) -> Element:
    """What colours and strokes mean."""
    return tag("ul", *_swatches(entries), class_="legend")


def _swatches(entries: Iterable[tuple[str, str]]) -> Iterable[Element]:
    for kind, name in entries:
        drawn = (
            tag("rect", width=32, height=14, y=1, class_=kind)
            if kind.startswith("band")
            else tag("path", d="M1 8H31", class_=kind)
        )
        yield tag("li", tag("svg", drawn, viewBox="0 0 32 16", aria_hidden="true"), name)
