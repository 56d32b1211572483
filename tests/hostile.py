"""Records that no shop should send, by name, with what must become of each.

In: nothing. Out: `HOSTILE`, and builders of single events with fields replaced by raw JSON.
Must not know: how decoding works. Rule: an outcome is what contracts §1 asks for, not what the code happens to do.
"""

from __future__ import annotations

import json
from typing import NamedTuple

CLOCK_MS = 1_700_000_000_000
EVENT = "event"

_COMMON = {"event_id": '"e1"', "event_time": str(CLOCK_MS)}
_ITEM = _COMMON | {"sku": '"TEA"'}
_OWN: dict[str, dict[str, str]] = {
    "order_placed": _ITEM | {"order_id": '"o1"', "quantity": "2", "unit_price": "9.99", "currency": '"GBP"'},
    "order_cancelled": _ITEM | {"order_id": '"o1"', "quantity": "2"},
    "order_returned": _ITEM | {"order_id": '"o1"', "quantity": "2"},
    "item_viewed": _ITEM | {"session_id": '"s1"'},
    "cart_added": _ITEM | {"session_id": '"s1"'},
    "cart_removed": _ITEM | {"session_id": '"s1"'},
    "price_set": _ITEM | {"price": "9.99", "currency": '"GBP"'},
    "competitor_price_set": _ITEM | {"price": "9.5", "currency": '"GBP"', "competitor": '"rival"'},
    "stock_counted": _ITEM | {"on_hand": "31"},
    "item_described": _ITEM | {"title": '"Tea"'},
    "item_retired": _ITEM,
    "review_posted": _ITEM | {"rating": "5", "text": '"good"'},
    "day_described": _COMMON | {"date": '"2026-12-25"', "name": '"Christmas"', "kind": '"holiday"'},
    "ack": _COMMON | {"idempotency_key": '"rt_1"', "status": '"accepted"'},
    "promote": _COMMON | {"model": '"retail-1"'},
    "rollback": _COMMON,
    "snooze": _COMMON | {"fingerprint": '"f1"', "until": str(CLOCK_MS * 2)},
    "acknowledge": _COMMON | {"fingerprint": '"f1"'},
    "override": _COMMON | {"sku": '"TEA"', "values": '{"safety_stock": 5}'},
}
TYPES = tuple(_OWN)


def event(kind: str = "order_placed", /, **raw: str | None) -> bytes:
    """One event as JSON, fields replaced by raw JSON text; None leaves a field out."""
    texts = {"type": json.dumps(kind)} | _OWN[kind] | raw
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items() if text is not None) + "}").encode(
        "utf-8", "surrogatepass"
    )


def required(kind: str) -> tuple[str, ...]:
    """Names of the fields that a type cannot do without."""
    return tuple(name for name in _OWN[kind] if name not in ("values", "until") and (kind, name) not in _OPTIONAL)


_OPTIONAL = {("override", "sku")}


class Hostile(NamedTuple):
    """A record (or several that belong together) and the outcome: `EVENT`, or a dead letter's stage and field."""

    name: str
    records: tuple[bytes | None, ...]
    stage: str
    field: str = ""


def _not_json(name: str, *records: bytes | None) -> Hostile:
    return Hostile(name, records, "decode")


def _bad(name: str, field: str, kind: str = "order_placed", /, **raw: str | None) -> Hostile:
    return Hostile(name, (event(kind, **raw),), "validate", field)


def _good(name: str, kind: str = "order_placed", /, **raw: str | None) -> Hostile:
    return Hostile(name, (event(kind, **raw),), EVENT)


def _nested(depth: int, opening: str, closing: str) -> bytes:
    return event(note=opening * depth + "1" + closing * depth)


def _padded(size: int) -> bytes:
    empty = event(note='""')
    return event(note='"' + "x" * (size - len(empty)) + '"')


_ORDER = event()
_HALF = len(_ORDER) // 2

_BYTES = [
    _not_json("null value", None),
    _not_json("empty", b""),
    _not_json("a space", b" "),
    _not_json("white space", b" \t\r\n \n"),
    _not_json("a NUL", b"\x00"),
    _not_json("a line end", b"\n"),
    _not_json("a brace", b"{"),
    _not_json("a closing brace", b"}"),
    _not_json("a bracket", b"["),
    _not_json("a quote", b'"'),
    _not_json("a backslash", b"\\"),
    _not_json("a comma", b","),
    _not_json("not JSON", b"hello"),
    _not_json("XML", b"<order sku='TEA'/>"),
    _not_json("CSV", b"e1,1700000000000,TEA,2"),
    _not_json("Avro with a schema id", b"\x00\x00\x00\x00\x07\x04e1\x06TEA"),
    _not_json("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
    _not_json("pickle", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00."),
    _not_json("single quotes", b"{'type':'order_placed'}"),
    _not_json("bare keys", b"{type:1}"),
    _not_json("a comment", b"/* hi */" + _ORDER),
    _not_json("a trailing comma", _ORDER[:-1] + b",}"),
    _not_json("a trailing comma in a list", event("stock_counted", arrivals="[1,]")),
    _not_json("a missing colon", _ORDER.replace(b":", b" ", 1)),
    _not_json("a missing comma", _ORDER.replace(b",", b" ", 1)),
    _not_json("cut in half", _ORDER[:_HALF]),
    _not_json("the other half", _ORDER[_HALF:]),
    _not_json("last byte lost", _ORDER[:-1]),
    _not_json("one brace too many", _ORDER + b"}"),
    _not_json("two objects", _ORDER + _ORDER),
    _not_json("two objects, a line end between", _ORDER + b"\n" + _ORDER),
    _not_json("two objects, a comma between", _ORDER + b"," + _ORDER),
    _not_json("text behind the object", _ORDER + b" ok"),
    _not_json("NUL behind the object", _ORDER + b"\x00"),
    _not_json("byte-order mark", b"\xef\xbb\xbf" + _ORDER),
    _not_json("UTF-16", _ORDER.decode().encode("utf-16")),
    _not_json("UTF-16 without a mark", _ORDER.decode().encode("utf-16-le")),
    _not_json("UTF-32", _ORDER.decode().encode("utf-32")),
    _not_json("one object over two records", _ORDER[:_HALF], _ORDER[_HALF:]),
    _not_json("one object over two records, cut at braces", b'{"type":"stock_counted","arrivals":[{}', b"{}]}"),
    _not_json("one object over two records, cut in a string", b'{"type":"item_described","title":"}', b'{"}'),
    _not_json("one object over two records, cut after a comma", b'{"a":{},', b'"b":{}}'),
    _not_json("two objects here, half a one there", _ORDER + _ORDER, _ORDER[:_HALF], _ORDER[_HALF:]),
    _not_json("opens a string that the next record closes", b'{"type":"', b'"}'),
    _not_json("opens a list that the next record closes", b"[", b"]"),
    _not_json("a comma as a record", b",", b","),
    _not_json("a raw line end in a string", event(sku='"TE\nA"')),
    _not_json("a raw NUL in a string", event(sku='"TE\x00A"')),
    _not_json("a raw tab in a string", event(sku='"TE\tA"')),
    _not_json("an unknown escape", event(sku=r'"TE\xA"')),
    _not_json("a short escape", event(sku=r'"TE\u00"')),
    _not_json("an escaped closing quote", event(sku=r'"TEA\"')),
    _not_json("a lone high surrogate, escaped", event(sku=r'"\ud800"')),
    _not_json("a lone low surrogate, escaped", event(sku=r'"\udc00"')),
    _not_json("surrogates the wrong way round", event(sku=r'"\udc00\ud800"')),
    _not_json("a high surrogate and a letter", event(sku=r'"\ud800x"')),
    _not_json("a lone surrogate, as bytes", event(sku='"\ud800"')),
    _not_json("a lone surrogate in an unknown field", event(note=r'"\ud800"')),
    _not_json("bad UTF-8 in a field", _ORDER.replace(b"TEA", b"TE\xff")),
    _not_json("bad UTF-8 in an unknown field", event(note='"?"').replace(b"?", b"\xff")),
    _not_json("bad UTF-8 in a field name", event(note='"?"').replace(b"note", b"n\xc3te")),
    _not_json("overlong UTF-8", _ORDER.replace(b"TEA", b"\xc0\xafTEA")),
    _not_json("a UTF-8 sequence cut short", _ORDER.replace(b"TEA", b"TEA\xe2\x82")),
    _not_json("UTF-8 beyond U+10FFFF", _ORDER.replace(b"TEA", b"\xf5\x80\x80\x80")),
    _not_json("Latin-1", _ORDER.replace(b"TEA", "Tée".encode("latin-1"))),
    _not_json("a nesting bomb of lists, 10k deep", b"[" * 10_000),
    _not_json("a nesting bomb of lists, closed", b"[" * 10_000 + b"]" * 10_000),
    _not_json("a nesting bomb of objects", b'{"a":' * 10_000),
    _not_json("a nesting bomb in an unknown field", _nested(10_000, "[", "]")),
    _not_json("a nesting bomb of objects in an unknown field", _nested(5_000, '{"a":', "}")),
    _not_json("a nesting bomb, 100k deep", b"[" * 100_000),
    _not_json("nested 65 deep", _nested(64, "[", "]")),
    _not_json("64 KiB and a byte", _padded(65_537)),
    _not_json("a megabyte", _padded(1_000_000)),
    _not_json("a megabyte of spaces", b" " * 1_000_000),
    _not_json("NaN for a number", event(quantity="NaN")),
    _not_json("Infinity for a number", event(unit_price="Infinity")),
    _not_json("-Infinity for a number", event("price_set", price="-Infinity")),
    _not_json("a leading zero", event(quantity="02")),
    _not_json("a leading plus", event(quantity="+2")),
    _not_json("a hexadecimal number", event(quantity="0x2")),
    _not_json("a number with a comma", event(quantity="1,5")),
    _not_json("a number that ends in a point", event(quantity="2.")),
    _not_json("a minus alone", event(quantity="-")),
    _not_json("True for true", event("price_set", promo="True")),
    _not_json("NaN in an unknown field", event(note="NaN")),
]

_WRONG_FIELDS = [
    Hostile("null", (b"null",), "validate", "$"),
    Hostile("true", (b"true",), "validate", "$"),
    Hostile("a number", (b"42",), "validate", "$"),
    Hostile("a string", (b'"order_placed"',), "validate", "$"),
    Hostile("an empty list", (b"[]",), "validate", "$"),
    Hostile("an event in a list", (b"[" + _ORDER + b"]",), "validate", "$"),
    Hostile("an empty object", (b"{}",), "validate", "$.type"),
    _bad("type missing", "$.type", type=None),
    _bad("type null", "$.type", type="null"),
    _bad("type a number", "$.type", type="1"),
    _bad("type a list", "$.type", type='["order_placed"]'),
    _bad("type empty", "$.type", type='""'),
    _bad("type unknown", "$.type", type='"order_shipped"'),
    _bad("type in capitals", "$.type", type='"ORDER_PLACED"'),
    _bad("type with a space", "$.type", type='"order_placed "'),
    _bad("type of 60,000 characters", "$.type", type='"' + "x" * 60_000 + '"'),
    _bad("type that quotes a path", "$.type", type='"x - at `$.sku`"'),
    _bad("type twice, not the same", "$.type", event_id='"e1","type":"ack"'),
    _bad("event_id empty", "$.event_id", event_id='""'),
    _bad("event_id of 65 characters", "$.event_id", event_id='"' + "x" * 65 + '"'),
    _bad("event_id a number", "$.event_id", event_id="1"),
    _bad("event_id with a control character", "$.event_id", event_id=r'"e\u0001"'),
    _bad("sku missing", "$.sku", sku=None),
    _bad("sku null", "$.sku", sku="null"),
    _bad("sku empty", "$.sku", sku='""'),
    _bad("sku of 129 characters", "$.sku", sku='"' + "x" * 129 + '"'),
    _bad("sku a number", "$.sku", sku="85123"),
    _bad("sku a list", "$.sku", sku='["TEA"]'),
    _bad("sku with an escaped line end", "$.sku", sku=r'"TE\nA"'),
    _bad("sku with an escaped NUL", "$.sku", sku=r'"TE\u0000A"'),
    _bad("sku with DEL", "$.sku", sku='"TE\x7fA"'),
    _bad("sku with a C1 character", "$.sku", sku='"TE\x85A"'),
    _bad("sku with an escaped C1 character", "$.sku", sku=r'"TE\u009fA"'),
    _bad("sku twice, the last one bad", "$.sku", sku='"TEA","sku":7'),
    _bad("quantity twice, the first one bad", "$.quantity", quantity='"no","quantity":2'),
    _bad("location empty", "$.location", location='""'),
    _bad("location null", "$.location", location="null"),
    _bad("location of 65 characters", "$.location", location='"' + "x" * 65 + '"'),
    _bad("location with a bar", "$.location", location='"a|b"'),
    _bad("location with an escaped bar", "$.location", location=r'"a\u007cb"'),
    _bad("location with a control character", "$.location", location=r'"a\tb"'),
    _bad("location of a day with a bar", "$.location", "day_described", location='"a|b"'),
    _bad("time missing", "$.event_time", event_time=None),
    _bad("time null", "$.event_time", event_time="null"),
    _bad("time true", "$.event_time", event_time="true"),
    _bad("time a number in quotes", "$.event_time", event_time='"1700000000000"'),
    _bad("time in seconds", "$.event_time", event_time="1700000000"),
    _bad("time in microseconds", "$.event_time", event_time="1700000000000000"),
    _bad("time zero", "$.event_time", event_time="0"),
    _bad("time negative", "$.event_time", event_time="-1"),
    _bad("time a float", "$.event_time", event_time="1700000000000.5"),
    _bad("time an exponent", "$.event_time", event_time="1.7e12"),
    _bad("time beyond 64 bits", "$.event_time", event_time="9" * 30),
    _bad("time of 5,000 digits", "$.event_time", event_time="9" * 5_000),
    _bad("time 2**63", "$.event_time", event_time=str(2**63)),
    _bad("time 1e400", "$.event_time", event_time="1e400"),
    _bad("time the last ms of 1999", "$.event_time", event_time="946684799999"),
    _bad("time in 1999, written", "$.event_time", event_time='"1999-12-31T23:59:59Z"'),
    _bad("time in 2000 there, in 1999 in UTC", "$.event_time", event_time='"2000-01-01T00:30:00+01:00"'),
    _bad("time in the year 1 with an offset", "$.event_time", event_time='"0001-01-01T00:00:00+23:59"'),
    _bad("time in the year 9999 with an offset", "$.event_time", event_time='"9999-12-31T23:59:59-23:59"'),
    _bad("time an hour and 1 ms ahead", "$.event_time", event_time=str(CLOCK_MS + 3_600_001)),
    _bad("time naive", "$.event_time", event_time='"2023-11-14T22:13:20"'),
    _bad("time a date", "$.event_time", event_time='"2023-11-14"'),
    _bad("time a leap second", "$.event_time", event_time='"2016-12-31T23:59:60Z"'),
    _bad("time at 24:00", "$.event_time", event_time='"2023-11-14T24:00:00Z"'),
    _bad("time on 30 February", "$.event_time", event_time='"2023-02-30T12:00:00Z"'),
    _bad("time with an offset of 25 h", "$.event_time", event_time='"2023-11-14T22:13:20+25:00"'),
    _bad("time as in HTTP", "$.event_time", event_time='"Tue, 14 Nov 2023 22:13:20 GMT"'),
    _bad("time empty", "$.event_time", event_time='""'),
    _bad("quantity missing", "$.quantity", quantity=None),
    _bad("quantity null", "$.quantity", quantity="null"),
    _bad("quantity true", "$.quantity", quantity="true"),
    _bad("quantity in quotes", "$.quantity", quantity='"12.5"'),
    _bad("quantity a list", "$.quantity", quantity="[2]"),
    _bad("quantity zero", "$.quantity", quantity="0"),
    _bad("quantity minus zero", "$.quantity", quantity="-0.0"),
    _bad("quantity negative", "$.quantity", quantity="-2"),
    _bad("quantity above a million", "$.quantity", quantity="1000000.001"),
    _bad("quantity 1e400", "$.quantity", quantity="1e400"),
    _bad("quantity -1e400", "$.quantity", quantity="-1e400"),
    _bad("quantity of 10,000 digits", "$.quantity", quantity="9" * 10_000),
    _bad("quantity of four decimals", "$.quantity", quantity="1.0005"),
    _bad("quantity next to nothing", "$.quantity", quantity="1e-9"),
    _bad("quantity denormal", "$.quantity", quantity="5e-324"),
    _bad("cancelled quantity of four decimals", "$.quantity", "order_cancelled", quantity="0.1234"),
    _bad("original time naive", "$.original_time", "order_cancelled", original_time='"2023-11-14T22:13:20"'),
    _bad("original time in 1999", "$.original_time", "order_cancelled", original_time="946684799999"),
    _bad("original time ahead", "$.original_time", "order_cancelled", original_time=str(CLOCK_MS + 3_600_001)),
    _bad("unit price negative", "$.unit_price", unit_price="-0.01"),
    _bad("unit price above 1e9", "$.unit_price", unit_price="1000000001"),
    _bad("unit price in quotes", "$.unit_price", unit_price='"9.99"'),
    _bad("price 1e10", "$.price", "price_set", price="1e10"),
    _bad("price -1e10", "$.price", "price_set", price="-1e10"),
    _bad("price null", "$.price", "price_set", price="null"),
    _bad("currency in small letters", "$.currency", currency='"gbp"'),
    _bad("currency a sign", "$.currency", currency='"£"'),
    _bad("currency of two letters", "$.currency", currency='"GB"'),
    _bad("currency of four letters", "$.currency", currency='"GBPX"'),
    _bad("currency of wide letters", "$.currency", currency='"ＧＢＰ"'),
    _bad("currency with a line end", "$.currency", currency=r'"GB\n"'),
    _bad("currency of a price in small letters", "$.currency", "price_set", currency='"gbp"'),
    _bad("currency of a rival's price, digits", "$.currency", "competitor_price_set", currency='"826"'),
    _bad("currency of a cost in small letters", "$.cost_currency", "item_described", cost_currency='"gbp"'),
    _bad("promo a number", "$.promo", "price_set", promo="1"),
    _bad("effective_from naive", "$.effective_from", "price_set", effective_from='"2023-11-14T22:13:20"'),
    _bad("session missing", "$.session_id", "item_viewed", session_id=None),
    _bad("session empty", "$.session_id", "cart_added", session_id='""'),
    _bad("session with a control character", "$.session_id", "cart_added", session_id=r'"s\u0007"'),
    _bad("rating zero", "$.rating", "review_posted", rating="0"),
    _bad("rating six", "$.rating", "review_posted", rating="6"),
    _bad("rating 4.5", "$.rating", "review_posted", rating="4.5"),
    _bad("rating in quotes", "$.rating", "review_posted", rating='"5"'),
    _bad("on_hand in quotes", "$.on_hand", "stock_counted", on_hand='"31"'),
    _bad("on_hand of four decimals", "$.on_hand", "stock_counted", on_hand="0.0001"),
    _bad("on_order negative", "$.on_order", "stock_counted", on_order="-1"),
    _bad("arrivals an object", "$.arrivals", "stock_counted", arrivals="{}"),
    _bad("arrivals of empty objects", "$.arrivals[0].quantity", "stock_counted", arrivals="[{}]"),
    _bad(
        "arrival on no day", "$.arrivals[0].due", "stock_counted", arrivals='[{"quantity":1,"due":"2026-02-30"}]'
    ),
    _bad("arrival at a naive time", "$.arrivals[0].due", "stock_counted",
         arrivals='[{"quantity":1,"due":"2026-02-20T10:00:00"}]'),
    _bad("arrival of four decimals", "$.arrivals[1].quantity", "stock_counted",
         arrivals='[{"quantity":1,"due":1},{"quantity":0.0001,"due":1}]'),
    _bad("501 arrivals", "$.arrivals", "stock_counted",
         arrivals="[" + ",".join(['{"quantity":1,"due":1}'] * 501) + "]"),
    _bad("title a number", "$.title", "item_described", title="7"),
    _bad("title of 2,001 characters", "$.title", "item_described", title='"' + "x" * 2_001 + '"'),
    _bad("locations a list", "$.locations", "item_described", locations="[]"),
    _bad("locations with a bar", "$.locations", "item_described", locations='{"a|b":{}}'),
    _bad("locations with an empty name", "$.locations", "item_described", locations='{"":{}}'),
    _bad("locations with a control character", "$.locations", "item_described", locations=r'{"a\u0000":{}}'),
    _bad("service level 1", "$.locations[...].service_level", "item_described",
         locations='{"a":{"service_level":1}}'),
    _bad("service level 0", "$.locations[...].service_level", "item_described",
         locations='{"a":{"service_level":0}}'),
    _bad("pack size 0", "$.locations[...].pack_size", "item_described", locations='{"a":{"pack_size":0}}'),
    _bad("moq of four decimals", "$.locations[...].moq", "item_described", locations='{"a":{"moq":0.0001}}'),
    _bad("source location with a bar", "$.locations[...].source_location", "item_described",
         locations='{"a":{"source_location":"b|c"}}'),
    _bad("lead time negative", "$.locations[...].lead_time_days.mean", "item_described",
         locations='{"a":{"lead_time_days":{"mean":-1,"p90":2}}}'),
    _bad("lead time without its p90", "$.locations[...].lead_time_days.p90", "item_described",
         locations='{"a":{"lead_time_days":{"mean":1}}}'),
    _bad("date no day", "$.date", "day_described", date='"2026-02-30"'),
    _bad("date with a time", "$.date", "day_described", date='"2026-02-20T00:00:00Z"'),
    _bad("date a number", "$.date", "day_described", date="20261225"),
    _bad("open a string", "$.open", "day_described", open='"no"'),
    _bad("status unknown", "$.status", "ack", status='"lost"'),
    _bad("idempotency key empty", "$.idempotency_key", "ack", idempotency_key='""'),
    _bad("promote without a model", "$.model", "promote", model=None),
    _bad("snooze of nothing", "$.fingerprint", "snooze", fingerprint=None),
    _bad("value of an override a list", "$.values[...]", "override", values='{"a":[1]}'),
]  # fmt: skip

_STRANGE_BUT_VALID = [
    _good("spaces around and inside", note="  1  "),
    Hostile("white space around the object", (b" \r\n" + _ORDER + b"\t\n",), EVENT),
    Hostile("pretty-printed", (json.dumps(json.loads(_ORDER), indent=2).encode(),), EVENT),
    Hostile("exactly 64 KiB", (_padded(65_536),), EVENT),
    Hostile("nested 64 deep", (_nested(63, "[", "]"),), EVENT),
    _good("a hundred brackets in a string", note='"' + "[{" * 50 + '"'),
    _good("a million in an unknown number", note="1e999"),
    _good("a key twice, both good", quantity='1,"quantity":2'),
    _good("type twice, the same", event_id='"e1","type":"order_placed"'),
    _good("type last", type=None, event_id='"e1","type":"order_placed"'),
    _good("sku of 128 characters", sku='"' + "x" * 128 + '"'),
    _good("sku of 128 emoji", sku='"' + "😀" * 128 + '"'),
    _good("sku as a surrogate pair", sku=r'"\ud83d\ude00"'),
    _good("sku a bar", sku='"a|b"'),
    _good("sku a quote", sku=r'"\""'),
    _good("sku a no-break space", sku='"a\xa0b"'),
    _good("sku right to left", sku='"\u202eAET"'),
    _good("sku like SQL", sku='"\'; DROP TABLE items; --"'),
    _good("sku like a path", sku='"../../etc/passwd"'),
    _good("event_id of 64 characters", event_id='"' + "x" * 64 + '"'),
    _good("location of 64 characters", location='"' + "x" * 64 + '"'),
    _good("time the first ms of 2000", event_time="946684800000"),
    _good("time an hour ahead", event_time=str(CLOCK_MS + 3_600_000)),
    _good("time with nanoseconds", event_time='"2023-11-14T22:13:20.123456789Z"'),
    _good("time with an offset of -00:00", event_time='"2023-11-14T22:13:20-00:00"'),
    _good("time in small letters", event_time='"2023-11-14t22:13:20z"'),
    _good("quantity with float noise", quantity="0.30000000000000004"),
    _good("quantity a thousandth", quantity="0.001"),
    _good("quantity a million", quantity="1e6"),
    _good("unit price zero", unit_price="0"),
    _good("unit price minus zero", unit_price="-0.0"),
    _good("unit price 1e9", unit_price="1e9"),
    _good("price zero", "price_set", price="0"),
    _good("price negative", "price_set", price="-5"),
    _good("price effective in ten years", "price_set", effective_from=str(CLOCK_MS + 315_360_000_000)),
    _good("stock negative", "stock_counted", on_hand="-3.5"),
    _good("arrival due on a date", "stock_counted", arrivals='[{"quantity":1,"due":"2026-12-01"}]'),
    _good("title with a line end", "item_described", title=r'"Tea\nfor two"'),
    _good("review empty", "review_posted", text='""'),
    _good("day on 29 February", "day_described", date='"2024-02-29"'),
    _good("command with unknown fields", "rollback", reason='"too low"'),
]

HOSTILE: tuple[Hostile, ...] = (*_BYTES, *_WRONG_FIELDS, *_STRANGE_BUT_VALID)
"""The corpus; names are unique."""
