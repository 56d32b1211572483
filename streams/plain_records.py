"""Plain records of orders and clicks to columns, in a kernel; all that is not plain is left to `streams.decode`.

In: values (and keys) of a chunk in one buffer each. Out: columns, and which rows are filled.
Must not know: what becomes of the others. Rule: a row is filled only where the outcome is that of `streams.decode` to
the bit; anything doubtful is left out, for that costs time and nothing else.

A record is *plain* that is one object of strings, numbers and words without anything inside anything: printable ASCII
without escapes, each known name once, numbers of at most 15 digits without sign and exponent, no white space but
blanks; and which is valid, belongs to the topic and lies under its key. Decimals of 15 digits are exact as a whole
number over a power of ten, both of which a double holds, so one division rounds as a correct parser does (Clinger
1990).
"""

# mypy: disallow_untyped_decorators=False, disallow_untyped_calls=False, disallow_untyped_defs=False
from __future__ import annotations

import numpy as np
from numba import types

from streams.checks import DECIMAL_TOLERANCE
from streams.compiled import kernel
from streams.events import Kind
from streams.fields import EARLIEST_MS, LATEST_MS, MAX_PRICE, MAX_QUANTITY
from streams.hashing import first_set, load8, load64, swapped, xxh3_64, xxh3_128

_LATEST_MS, _EARLIEST_MS = LATEST_MS, EARLIEST_MS
_MAX_QUANTITY, _MAX_PRICE, _TOLERANCE = MAX_QUANTITY, MAX_PRICE, DECIMAL_TOLERANCE
_MAX_BYTES = 65_536

_TYPE, _ID, _TIME, _SKU, _LOCATION, _ORDER, _QUANTITY, _PRICE, _CURRENCY, _CHANNEL, _ORIGINAL, _SESSION = range(12)
_NAMES = ("type", "event_id", "event_time", "sku", "location", "order_id", "quantity", "unit_price", "currency",
          "channel", "original_time", "session_id")  # fmt: skip
_ABSENT, _TEXT, _WHOLE, _DECIMAL, _NULL, _OTHER = range(6)


def _word(text: str, at: int = 0) -> np.uint64:
    return np.uint64(int.from_bytes(text.encode()[at : at + 8], "little"))


# Names and types are told apart by their length and their words of eight bytes, the second of which is padded by zeros.
_N = [(len(name), _word(name), _word(name, 8)) for name in _NAMES]
_NAME_SIZE = np.array([size for size, _, _ in _N], np.int64)
_NAME_HEAD = np.array([head for _, head, _ in _N], np.uint64)
_NAME_TAIL = np.array([tail for _, _, tail in _N], np.uint64)
_KINDS = [kind for kind in Kind if kind <= Kind.CART_REMOVED]
_KIND_SIZE = np.array([len(kind.name) for kind in _KINDS], np.int64)
_KIND_HEAD = np.array([_word(kind.name.lower()) for kind in _KINDS], np.uint64)
_KIND_TAIL = np.array([_word(kind.name.lower(), 8) for kind in _KINDS], np.uint64)
_KIND_CODE = np.array([int(kind) for kind in _KINDS], np.int64)
_DEFAULT = _word("default")
_POWERS = np.array([10.0**n for n in range(17)], np.float64)

_ONES, _TOPS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES, _DELETES = _ONES * np.uint64(0x22), _ONES * np.uint64(0x5C), _ONES * np.uint64(0x7F)
_BLANKS = _ONES * np.uint64(0x20)
_U1, _U3, _U4, _U8, _U10, _U64, _U255 = (np.uint64(n) for n in (1, 3, 4, 8, 10, 64, 255))
_QUOTE, _COMMA, _COLON, _OPEN, _SHUT, _BLANK = (np.uint64(ord(sign)) for sign in '",:{} ')
_ZERO, _NINE, _POINT, _BAR, _MINUS = (np.uint64(ord(sign)) for sign in "09.|-")
_TRUE, _FALSE, _NULL_WORD = _word("true"), _word("false"), _word("null")
_NOTHING = np.uint64(0)


@kernel
def _text_end(at, end):
    """Address of the quote that ends a text, 0 where something other than printable ASCII comes before it."""
    while at < end:
        word = load64(at)
        quote, slash, delete = word ^ _QUOTES, word ^ _BACKSLASHES, word ^ _DELETES
        stop = ((quote - _ONES) & ~quote) | ((slash - _ONES) & ~slash) | ((delete - _ONES) & ~delete)
        stop = (stop | ((word - _BLANKS) & ~word) | word) & _TOPS
        if stop:
            at += first_set(stop) >> _U3
            return at if at < end and load8(at) == _QUOTE else _NOTHING
        at += _U8
    return _NOTHING


@kernel
def _past_blanks(at, end):
    while at < end and load8(at) == _BLANK:
        at += _U1
    return at


@kernel
def _words(at, size):
    """The first 16 bytes of a text of at most 16, the rest zeros."""
    head = load64(at)
    if size < 8:
        return head & ((_U1 << (np.uint64(size) * _U8)) - _U1), _NOTHING
    tail = load64(at + _U8)
    if size < 16:
        tail &= (_U1 << (np.uint64(size - 8) * _U8)) - _U1
    return head, tail


@kernel
def _name(at, size):
    """Number of a name, -1 where it is none of ours."""
    if size < 3 or size > 13:
        return -1
    head, tail = _words(at, size)
    for i in range(len(_NAME_SIZE)):
        if _NAME_HEAD[i] == head and _NAME_SIZE[i] == size and _NAME_TAIL[i] == tail:
            return i
    return -1


@kernel
def _kind(at, size):
    """Code of a type, 0 where it is none of ours."""
    if size < 10 or size > 15:
        return 0
    head, tail = _words(at, size)
    for i in range(len(_KIND_SIZE)):
        if _KIND_HEAD[i] == head and _KIND_SIZE[i] == size and _KIND_TAIL[i] == tail:
            return _KIND_CODE[i]
    return 0


@kernel
def _number(at, end):
    """A number at an address: the address after it (0 where it is not plain), its digits as one, and its decimals."""
    first, digits, decimals = at, _NOTHING, 0
    sign = load8(at)
    while at < end and sign >= _ZERO and sign <= _NINE:
        digits = digits * _U10 + (sign - _ZERO)
        at += _U1
        sign = load8(at)
    whole = np.int64(at - first)
    if whole == 0 or whole > 15 or (whole > 1 and load8(first) == _ZERO):
        return _NOTHING, digits, 0
    if at < end and sign == _POINT:
        at += _U1
        dot = at
        sign = load8(at)
        while at < end and sign >= _ZERO and sign <= _NINE and decimals < 16:
            digits = digits * _U10 + (sign - _ZERO)
            at += _U1
            decimals += 1
            sign = load8(at)
        if at == dot or whole + decimals > 15:
            return _NOTHING, digits, 0
    return at, digits, decimals


@kernel
def _literal(at, end):
    """Address after a word of JSON, 0 where it is none; and what kind of token it is."""
    if at + _U4 <= end:
        four = load64(at) & np.uint64(0xFFFFFFFF)
        if four == _NULL_WORD:
            return at + _U4, _NULL
        if four == _TRUE:
            return at + _U4, _OTHER
        if at + np.uint64(5) <= end and (load64(at) & np.uint64(0xFFFFFFFFFF)) == _FALSE:
            return at + np.uint64(5), _OTHER
    return _NOTHING, _OTHER


@kernel
def _fields(at, end, token, first, last, number):
    """Find the fields of one record; False where it is not plain.

    Of a text `first` and `last` are the addresses of its bytes and behind them; of a number `first` are its digits and
    `number` how many of these are decimals.
    """
    token[:] = _ABSENT
    at = _past_blanks(at, end)
    if at >= end or load8(at) != _OPEN:
        return False
    while True:
        at = _past_blanks(at + _U1, end)
        if at >= end or load8(at) != _QUOTE:
            return False
        start = at + _U1
        at = _text_end(start, end)
        if at == 0:
            return False
        field = _name(start, np.int64(at - start))
        at = _past_blanks(at + _U1, end)
        if at >= end or load8(at) != _COLON:
            return False
        at = _past_blanks(at + _U1, end)
        if at >= end:
            return False
        sign, what, decimals, begin, stop = load8(at), _TEXT, 0, at, at
        if sign == _QUOTE:
            begin = at + _U1
            stop = _text_end(begin, end)
            if stop == 0:
                return False
            at = stop + _U1
        elif sign >= _ZERO and sign <= _NINE:
            at, begin, decimals = _number(at, end)
            what = _DECIMAL if decimals else _WHOLE
        else:
            at, what = _literal(at, end)
        if at == 0:
            return False
        if field >= 0:
            if token[field] != _ABSENT:
                return False
            token[field], first[field], last[field], number[field] = what, begin, stop, decimals
        at = _past_blanks(at, end)
        if at >= end:
            return False
        if load8(at) == _SHUT:
            return _past_blanks(at + _U1, end) == end
        if load8(at) != _COMMA:
            return False


@kernel
def _is_text(token, first, last, field, least, most):
    return token[field] == _TEXT and least <= np.int64(last[field] - first[field]) <= most


@kernel
def _is_amount(token, field):
    return token[field] == _WHOLE or token[field] == _DECIMAL


@kernel
def _amount(first, number, field):
    return np.float64(first[field]) / _POWERS[number[field]]


@kernel
def _holds_bar(at, end):
    while at < end:
        if load8(at) == _BAR:
            return True
        at += _U1
    return False


@kernel
def _is_time(token, first, field, latest_ms):
    return token[field] == _WHOLE and _EARLIEST_MS <= np.int64(first[field]) <= min(latest_ms, _LATEST_MS)


@kernel
def _order(i, kind, token, first, last, number, latest_ms, quantity, price, currency, original_ms):
    """Fill the columns of an order; False where it is not valid."""
    if not (_is_text(token, first, last, _ORDER, 0, 128) and _is_amount(token, _QUANTITY)):
        return False
    units = _amount(first, number, _QUANTITY)
    exact = units * 1000.0
    whole = np.rint(exact)
    if units > _MAX_QUANTITY or whole < 1.0 or abs(exact - whole) > _TOLERANCE:
        return False
    quantity[i] = np.int64(whole)
    if kind == 1:
        if not (_is_amount(token, _PRICE) and _is_text(token, first, last, _CURRENCY, 3, 3)):
            return False
        if token[_CHANNEL] != _ABSENT and not _is_text(token, first, last, _CHANNEL, 0, 128):
            return False
        each = _amount(first, number, _PRICE)
        if each > _MAX_PRICE:
            return False
        price[i] = np.int64(np.rint(each * 10_000.0))
        code = np.int64(0)
        for k in range(3):
            sign = np.int64(load8(first[_CURRENCY] + np.uint64(k)))
            if sign < 65 or sign > 90:
                return False
            code = code * 256 + sign
        currency[i] = np.int32(code)
    elif kind == 2 and token[_ORIGINAL] != _ABSENT and token[_ORIGINAL] != _NULL:
        if not _is_time(token, first, _ORIGINAL, latest_ms):
            return False
        original_ms[i] = np.int64(first[_ORIGINAL])
    return True


@kernel
def _place(i, token, first, last, base, scratch, series, location_start, location_end):
    """Fill the hash of SKU and location; False where the location is not valid."""
    at, size = first[_SKU], last[_SKU] - first[_SKU]
    location_start[i] = location_end[i] = 0
    if token[_LOCATION] != _ABSENT:
        if not _is_text(token, first, last, _LOCATION, 1, 64):
            return False
        begin, stop = first[_LOCATION], last[_LOCATION]
        if _holds_bar(begin, stop):
            return False
        length = stop - begin
        location_start[i], location_end[i] = np.int64(begin - base), np.int64(stop - base)
        if not (length == np.uint64(7) and _words(begin, 7)[0] == _DEFAULT):
            for k in range(size):
                scratch[k] = load8(at + np.uint64(k))
            scratch[size] = 0x1F
            for k in range(length):
                scratch[size + _U1 + np.uint64(k)] = load8(begin + np.uint64(k))
            at, size = np.uint64(scratch.ctypes.data), size + _U1 + length
    low, high = xxh3_128(at, size)
    series[i, 0], series[i, 1] = swapped(high), swapped(low)  # as the digest has them
    return True


@kernel
def _same(a, b, size):
    """Whether the bytes at two addresses are alike."""
    left = size
    while left >= _U8:
        if load64(a) != load64(b):
            return False
        a, b, left = a + _U8, b + _U8, left - _U8
    for k in range(left):  # noqa: SIM110 - a kernel has no generators
        if load8(a + np.uint64(k)) != load8(b + np.uint64(k)):
            return False
    return True


@kernel
def parse(
    address, starts, ends, key_address, key_starts, key_ends, kinds, latest_ms,
    plain, kind, time_ms, quantity, price, currency, original_ms, session, id_hash, series,
    sku_start, sku_end, location_start, location_end,
):  # fmt: skip
    """Fill the rows of plain records, and say in `plain` which these are.

    An end below its start is no value. `kinds` has a bit for each kind of the topic; no keys are a chunk without keys.
    The buffer must go on for 16 bytes after the last value. Columns come with the values of events that lack a field.
    """
    base, key_base = np.uint64(address), np.uint64(key_address)
    token, number = np.zeros(12, np.int64), np.zeros(12, np.int64)
    first, last, scratch = np.zeros(12, np.uint64), np.zeros(12, np.uint64), np.zeros(256, np.uint8)
    count = 0
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        if size < 2 or size > _MAX_BYTES:
            continue
        at = base + np.uint64(starts[i])
        if not _fields(at, at + np.uint64(size), token, first, last, number) or token[_TYPE] != _TEXT:
            continue
        code = _kind(first[_TYPE], np.int64(last[_TYPE] - first[_TYPE]))
        if code == 0 or not (kinds >> code) & 1 or not _is_time(token, first, _TIME, latest_ms):
            continue
        if not (_is_text(token, first, last, _ID, 1, 64) and _is_text(token, first, last, _SKU, 1, 128)):
            continue
        sku, length = first[_SKU], last[_SKU] - first[_SKU]
        if len(key_starts):
            if key_ends[i] - key_starts[i] != np.int64(length):
                continue
            if not _same(key_base + np.uint64(key_starts[i]), sku, length):
                continue
        if code <= 3:
            if not _order(i, code, token, first, last, number, latest_ms, quantity, price, currency, original_ms):
                quantity[i], price[i], currency[i], original_ms[i] = 0, 0, 0, -1
                continue
        elif not _is_text(token, first, last, _SESSION, 1, 128):
            continue
        if not _place(i, token, first, last, base, scratch, series, location_start, location_end):
            quantity[i], price[i], currency[i], original_ms[i] = 0, 0, 0, -1
            continue
        if code > 3:
            session[i] = xxh3_64(first[_SESSION], last[_SESSION] - first[_SESSION])
        id_hash[i] = xxh3_64(first[_ID], last[_ID] - first[_ID])
        kind[i], time_ms[i] = code, np.int64(first[_TIME])
        sku_start[i], sku_end[i] = np.int64(sku - base), np.int64(last[_SKU] - base)
        plain[i] = True
        count += 1
    return count


_I64, _U64S = types.int64[::1], types.uint64[::1]
ENTRIES = {
    "parse": types.int64(
        types.int64, _I64, _I64, types.int64, _I64, _I64, types.int64, types.int64,
        types.boolean[::1], types.uint8[::1], _I64, _I64, _I64, types.int32[::1], _I64, _U64S, _U64S,
        types.uint64[:, ::1], _I64, _I64, _I64, _I64,
    ),
}  # fmt: skip
"""What `streams.compiled` loads, by name, with the types of the arguments."""
