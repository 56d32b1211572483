"""Hashes of short texts in kernels: XXH3 of 64 and 128 bits, and what Kafka's producers compute of a key.

In: addresses of bytes and their number. Out: the numbers that the packages ``xxhash`` and `streams.partition` give.
Must not know: what the bytes mean. Rule: at most `MOST_BYTES` bytes; identifiers of the contract are shorter.

References
----------
XXH3: xxHash specification 0.2.0, ``doc/xxhash_spec.md`` of github.com/Cyan4973/xxHash, seed 0 and the default secret.
murmur2, crc32: see `streams.partition`.
"""

# mypy: disallow_untyped_decorators=False, disallow_untyped_calls=False, disallow_untyped_defs=False
from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from streams.compiled import kernel

MOST_BYTES = 240
"""Above it XXH3 works in another way, which no identifier needs."""

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
# Words that begin at each byte of the secret, so that no kernel reads them by address.
_S64 = np.array([int.from_bytes(_SECRET[at : at + 8], "little") for at in range(len(_SECRET) - 7)], np.uint64)
_S32 = np.array([int.from_bytes(_SECRET[at : at + 4], "little") for at in range(20)], np.uint64)

_P32_2 = np.uint64(0x85EBCA77)
_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_MX1, _MX2 = np.uint64(0x165667919E3779F9), np.uint64(0x9FB21C651E98DF25)
_U0, _U1, _U2, _U3, _U4, _U8, _U16 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8, 16))
_U13, _U19, _U24, _U28, _U29, _U32, _U33, _U35 = (np.uint64(n) for n in (13, 19, 24, 28, 29, 32, 33, 35))
_U37, _U48, _U49, _U54, _U64 = (np.uint64(n) for n in (37, 48, 49, 54, 64))
_LOW = np.uint64(0xFFFFFFFF)


# -- words and bytes at an address, and what numba has no word for


def _load(bits: int) -> Any:
    def typed(context: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            word = ir.IntType(bits)
            loaded = builder.load(builder.inttoptr(args[0], word.as_pointer()), align=1)
            return loaded if bits == 64 else builder.zext(loaded, ir.IntType(64))

        return types.uint64(types.uint64), code

    return intrinsic(typed)


load8, load32, load64 = _load(8), _load(32), _load(64)


@intrinsic
def high_product(context: Any, a: Any, b: Any) -> Any:
    """Upper 64 bits of a product of two words."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), code


@intrinsic
def swapped(context: Any, word: Any) -> Any:
    """A word with its bytes in reverse order."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), code


@intrinsic
def first_set(context: Any, word: Any) -> Any:
    """Number of zero bits below the lowest one of a word that is not 0."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), code


# -- XXH3


@kernel
def _fold(a, b):
    return (a * b) ^ high_product(a, b)


@kernel
def _avalanche(h):
    h = (h ^ (h >> _U37)) * _MX1
    return h ^ (h >> _U32)


@kernel
def _avalanche64(h):
    h = (h ^ (h >> _U33)) * _P2
    h = (h ^ (h >> _U29)) * _P3
    return h ^ (h >> _U32)


@kernel
def _mix(at, secret):
    return _fold(load64(at) ^ _S64[secret], load64(at + _U8) ^ _S64[secret + 8])


@kernel
def _short64(at, n):
    """Up to 16 bytes."""
    if n > _U8:
        low = load64(at) ^ (_S64[24] ^ _S64[32])
        high = load64(at + n - _U8) ^ (_S64[40] ^ _S64[48])
        return _avalanche(n + swapped(low) + high + _fold(low, high))
    if n >= _U4:
        keyed = (load32(at + n - _U4) + (load32(at) << _U32)) ^ (_S64[8] ^ _S64[16])
        keyed ^= ((keyed << _U49) | (keyed >> np.uint64(15))) ^ ((keyed << _U24) | (keyed >> np.uint64(40)))
        keyed *= _MX2
        keyed ^= (keyed >> _U35) + n
        keyed *= _MX2
        return keyed ^ (keyed >> _U28)
    if n > _U0:
        combined = (load8(at) << _U16) | (load8(at + (n >> _U1)) << _U24) | load8(at + n - _U1) | (n << _U8)
        return _avalanche64(combined ^ (_S32[0] ^ _S32[4]))
    return _avalanche64(_S64[56] ^ _S64[64])


@kernel
def xxh3_64(at, n):
    """XXH3 of 64 bits of ``n`` bytes at an address, both uint64."""
    if n <= _U16:
        return _short64(at, n)
    total, end = n * _P1, at + n
    if n <= np.uint64(128):
        for i in range(np.int64((n - _U1) >> np.uint64(5)), -1, -1):
            step = np.uint64(16 * i)
            total += _mix(at + step, 32 * i) + _mix(end - _U16 - step, 32 * i + 16)
        return _avalanche(total)
    for i in range(8):
        total += _mix(at + np.uint64(16 * i), 16 * i)
    total = _avalanche(total)
    for i in range(8, np.int64(n >> _U4)):
        total += _mix(at + np.uint64(16 * i), 16 * (i - 8) + 3)
    return _avalanche(total + _mix(end - _U16, 119))


@kernel
def _short128(at, n):
    """Up to 16 bytes: the lower and the upper word."""
    if n > _U8:
        first, last = load64(at), load64(at + n - _U8)
        keyed = first ^ last ^ (_S64[32] ^ _S64[40])
        low, high = keyed * _P1 + ((n - _U1) << _U54), high_product(keyed, _P1)
        last ^= _S64[48] ^ _S64[56]
        high += last + (last & _LOW) * (_P32_2 - _U1)
        low ^= swapped(high)
        return _avalanche(low * _P2), _avalanche(high_product(low, _P2) + high * _P2)
    if n >= _U4:
        keyed = (load32(at) + (load32(at + n - _U4) << _U32)) ^ (_S64[16] ^ _S64[24])
        factor = _P1 + (n << _U2)
        low, high = keyed * factor, high_product(keyed, factor)
        high += low << _U1
        low ^= high >> _U3
        low = (low ^ (low >> _U35)) * _MX2
        return low ^ (low >> _U28), _avalanche(high)
    if n > _U0:
        low = (load8(at) << _U16) | (load8(at + (n >> _U1)) << _U24) | load8(at + n - _U1) | (n << _U8)
        high = swapped(low) >> _U32
        high = ((high << _U13) | (high >> _U19)) & _LOW
        return _avalanche64(low ^ (_S32[0] ^ _S32[4])), _avalanche64(high ^ (_S32[8] ^ _S32[12]))
    return _avalanche64(_S64[64] ^ _S64[72]), _avalanche64(_S64[80] ^ _S64[88])


@kernel
def _mix32(low, high, a, b, secret):
    low = (low + _mix(a, secret)) ^ (load64(b) + load64(b + _U8))
    high = (high + _mix(b, secret + 16)) ^ (load64(a) + load64(a + _U8))
    return low, high


@kernel
def xxh3_128(at, n):
    """XXH3 of 128 bits of ``n`` bytes at an address: the lower and the upper word."""
    if n <= _U16:
        return _short128(at, n)
    low, high, end = n * _P1, _U0, at + n
    if n <= np.uint64(128):
        for i in range(np.int64((n - _U1) >> np.uint64(5)), -1, -1):
            step = np.uint64(16 * i)
            low, high = _mix32(low, high, at + step, end - _U16 - step, 32 * i)
    else:
        for i in range(4):
            step = np.uint64(32 * i)
            low, high = _mix32(low, high, at + step, at + step + _U16, 32 * i)
        low, high = _avalanche(low), _avalanche(high)
        for i in range(4, np.int64(n >> np.uint64(5))):
            step = np.uint64(32 * i)
            low, high = _mix32(low, high, at + step, at + step + _U16, 32 * (i - 4) + 3)
        low, high = _mix32(low, high, end - _U16, end - np.uint64(32), 103)
    return _avalanche(low + high), _U0 - _avalanche(low * _P1 + high * _P4 + n * _P2)


# -- partitions of keys

_M = np.uint64(0x5BD1E995)
_CRC = np.array([zlib.crc32(bytes([n])) ^ 0xFF000000 for n in range(256)], np.uint64)
_CRC ^= _CRC[0]


@kernel
def _murmur2(at, n):
    hashed = np.uint64(0x9747B28C) ^ n
    end = at + (n & ~_U3)
    while at < end:
        word = load32(at) * _M & _LOW
        word = (word ^ (word >> _U24)) * _M & _LOW
        hashed = (hashed * _M & _LOW) ^ word
        at += _U4
    left = n & _U3
    if left:
        word = load8(at)
        if left > _U1:
            word |= load8(at + _U1) << _U8
        if left > _U2:
            word |= load8(at + _U2) << _U16
        hashed = (hashed ^ word) * _M & _LOW
    hashed = (hashed ^ (hashed >> _U13)) * _M & _LOW
    return hashed ^ (hashed >> np.uint64(15))


@kernel
def _crc32(at, n):
    hashed = _LOW
    for i in range(n):
        hashed = _CRC[(hashed ^ load8(at + np.uint64(i))) & np.uint64(0xFF)] ^ (hashed >> _U8)
    return hashed ^ _LOW


# -- whole columns


@kernel
def hash_texts(address, starts, ends, short, long):
    """Fill the 64-bit and the 128-bit hashes (lower word, upper word) of texts in a buffer."""
    base = np.uint64(address)
    for i in range(len(starts)):
        at, n = base + np.uint64(starts[i]), np.uint64(ends[i] - starts[i])
        short[i] = xxh3_64(at, n)
        long[i, 0], long[i, 1] = xxh3_128(at, n)


@kernel
def partitions(address, starts, ends, by_murmur2, count, out):
    """Fill the partition of each key in a buffer, by the rule of Java clients or that of librdkafka."""
    base, modulus = np.uint64(address), np.uint64(count)
    for i in range(len(starts)):
        at, n = base + np.uint64(starts[i]), np.uint64(ends[i] - starts[i])
        hashed = _murmur2(at, n) & np.uint64(0x7FFFFFFF) if by_murmur2 else _crc32(at, n)
        out[i] = hashed % modulus


_I64, _U64S, _U64X2 = types.int64[::1], types.uint64[::1], types.uint64[:, ::1]
ENTRIES = {
    "hash_texts": types.void(types.int64, _I64, _I64, _U64S, _U64X2),
    "partitions": types.void(types.int64, _I64, _I64, types.boolean, types.int64, types.int32[::1]),
}
"""What `streams.compiled` loads, by name, with the types of the arguments."""
