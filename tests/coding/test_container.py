from __future__ import annotations

import contextlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.coding import Container, pack, unpack
from ancestral.coding.container import MAGIC, VERSION, read_varint, read_varints, varint, varints
from ancestral.errors import StreamError

SMALL = Container(1, b"\x11" * 8, b"\x22" * 4, b"\x33" * 4, (2, 300, 256, 0), (b"side", b"", b"\x01\x02\x03\x04"))


def test_golden_bytes_of_version_1():
    # Written out by hand from the module's table; a change here breaks every stream in the world.
    expected = bytes.fromhex(
        "414e4353 01 01 1111111111111111 22222222 33333333"
        "04 02 ac02 8002 00"
        "03 08 73696465 00 08 01020304"
    )  # fmt: skip
    expected += zlib.crc32(expected).to_bytes(4, "little")
    assert pack(SMALL) == expected
    assert expected[-4:].hex() == "57194c4a"
    assert unpack(expected) == SMALL


def test_golden_bytes_of_a_deflated_section():
    content = Container(2, bytes(8), bytes(4), bytes(4), (), (b"a" * 100, b"code"))
    blob = pack(content)
    size, at = read_varint(blob, 24)
    assert size % 2 == 1 and zlib.decompress(blob[at : at + size // 2]) == b"a" * 100
    assert len(blob) == at + size // 2 + len(b"\x08code") + 4 < 50
    assert unpack(blob) == content and content.code_bits == 32


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=6),
    st.lists(st.one_of(st.binary(max_size=40), st.just(b"xy" * 500)), min_size=1, max_size=6),
    st.binary(min_size=16, max_size=16),
)
def test_round_trip(numbers, sections, prints):
    content = Container(1, prints[:8], prints[8:12], prints[12:], tuple(numbers), tuple(sections))
    assert unpack(pack(content)) == content


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1)))
def test_varints(numbers):
    assert read_varints(varints(numbers)) == numbers


def test_varint_bounds():
    assert [varint(n) for n in (0, 127, 128, 16384)] == [b"\0", b"\x7f", b"\x80\x01", b"\x80\x80\x01"]
    with pytest.raises(ValueError):
        varint(-1)
    for endless in (b"", b"\x80", b"\x80" * 20):
        with pytest.raises(StreamError, match="damaged"):
            read_varint(endless, 0)


def test_every_bit_flip_is_refused():
    blob = pack(SMALL)
    for bit in range(8 * len(blob)):
        broken = bytearray(blob)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StreamError):
            unpack(bytes(broken))


def test_every_truncation_and_any_addition_is_refused():
    blob = pack(SMALL)
    for end in range(len(blob)):
        with pytest.raises(StreamError):
            unpack(blob[:end])
    with pytest.raises(StreamError, match="damaged or cut short"):
        unpack(blob + b"\0")


def test_sentences():
    with pytest.raises(StreamError, match="not a stream that ancestral compressed"):
        unpack(b"PK\x03\x04 something else altogether, long enough")
    later = bytearray(pack(SMALL)[:-4])
    later[len(MAGIC)] = VERSION + 6
    later += zlib.crc32(later).to_bytes(4, "little")
    with pytest.raises(StreamError, match=f"format version {VERSION + 6} .*reads up to {VERSION}; update"):
        unpack(bytes(later))


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_behind_the_magic_are_refused(tail):
    with pytest.raises(StreamError):
        unpack(MAGIC + bytes([VERSION, 1]) + tail)


def reseal(blob: bytearray) -> bytes:
    """A checksum that fits, so that what is behind it is put to the test."""
    return bytes(blob[:-4]) + zlib.crc32(blob[:-4]).to_bytes(4, "little")


@settings(max_examples=50, deadline=None)
@given(st.integers(22, len(pack(SMALL)) - 5), st.integers(1, 255))
def test_damage_under_a_fitting_checksum_raises_only_stream_errors(at, change):
    broken = bytearray(pack(SMALL))
    broken[at] ^= change
    with contextlib.suppress(StreamError):
        assert unpack(reseal(broken)) != SMALL


def test_the_code_is_never_deflated():
    content = Container(1, bytes(8), bytes(4), bytes(4), (), (b"a" * 100, b"a" * 100))
    blob = pack(content)
    assert unpack(blob) == content and content.code_bits == 800
    assert b"a" * 100 in blob and blob.count(b"a" * 50) == 2  # stored as it is; the section before is packed
