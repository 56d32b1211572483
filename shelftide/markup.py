"""Pages of HTML as trees: elements, texts from anywhere made harmless, numbers for people.

In: names, attributes, texts. Out: elements; a page as bytes.
Must not know: what a page is about. Rule: text enters a page through `tag` alone, which the serialiser escapes; what
cannot be seen in print is replaced.
"""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element, tostring

MOST_CHARACTERS = 80
"""Of a name on a page; an item id may have 128 and a task may come from anywhere."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may fetch for the page: nothing."""

_MINUS = "\N{MINUS SIGN}"
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def tag(name: str, /, *content: str | Element, **attributes: str | float) -> Element:
    """Build an element from texts and elements in order.

    An underscore in the name of an attribute is a hyphen, one at its end is dropped.

    Examples
    --------
    >>> note = tag("p", "2 < 3 ", tag("b", "&"), "!", class_="note", aria_label='"')
    >>> tostring(note, encoding="unicode", method="html")
    '<p class="note" aria-label="&quot;">2 &lt; 3 <b>&amp;</b>!</p>'
    """
    node = Element(name, {key.rstrip("_").replace("_", "-"): _value(value) for key, value in attributes.items()})
    for part in content:
        if isinstance(part, Element):
            node.append(part)
        elif len(node):
            node[-1].tail = (node[-1].tail or "") + part
        else:
            node.text = (node.text or "") + part
    return node


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def page(title: str, style: str, *content: Element) -> bytes:
    """Make a whole page, in UTF-8, that fetches nothing and runs nothing."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", style),
    )
    root = tag("html", head, tag("body", *content), lang="en")
    text = tostring(root, encoding="unicode", method="html")
    return b"<!doctype html>\n" + text.encode("utf-8", "replace") + b"\n"


def shown(text: str, most: int = MOST_CHARACTERS) -> str:
    r"""Make a text of unknown origin fit to print: what is invisible or turns the line is replaced, length is held.

    Examples
    --------
    >>> shown("a\x00b\u202ec"), shown("x" * 9, 4), shown("")
    ('a\ufffdb\ufffdc', 'xxx…', '(empty)')
    """
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: most + 1])
    return (seen if len(seen) <= most else seen[: most - 1] + "…") or "(empty)"


def ratio(value: float) -> str:
    """Write a measure with four decimals.

    Examples
    --------
    >>> ratio(0.67124), ratio(float("nan")), ratio(1234567.0), ratio(-0.5)
    ('0.6712', '–', '1.23e+06', '−0.5000')
    """
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.4f}" if abs(value) < 10_000 else f"{abs(value):.3g}"
    return (_MINUS if value < 0 else "") + text


def percent(value: float, *, signed: bool = False) -> str:
    """Write a share in percent.

    Examples
    --------
    >>> percent(0.7864), percent(-0.0312, signed=True), percent(float("inf"))
    ('78.6 %', '−3.1 %', '–')
    """
    if not math.isfinite(value):
        return "–"
    size = abs(100 * value)
    text = f"{size:.1f}" if size < 10_000 else f"{size:.3g}"
    sign = "" if float(text) == 0 else _MINUS if value < 0 else "+" if signed else ""
    return f"{sign}{text} %"


def amount(value: float) -> str:
    """Write a number of a scale in few characters.

    Examples
    --------
    >>> amount(0.0), amount(0.25), amount(1500.0), amount(2e6), amount(3e38), amount(-7.0)
    ('0', '0.25', '1.5k', '2M', '3e38', '−7')
    """
    sign, size = (_MINUS if value < 0 else ""), abs(value)
    if size >= 1e12 or 0 < size < 1e-3:
        digits, _, power = f"{size:.1e}".partition("e")
        return f"{sign}{digits.removesuffix('.0')}e{int(power)}"
    for least, letter in _PREFIXES:
        if size >= least:
            return f"{sign}{size / least:.4g}{letter}"
    return f"{sign}{size:.4g}"
