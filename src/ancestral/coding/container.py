"""The byte format of compressed data.

====================  =====================================================================================
bytes                 content
====================  =====================================================================================
4                     magic ``ANCS``
1                     format version, 1
1                     kind: 1 items (:mod:`ancestral.coding.codec`), 2 streams (:mod:`ancestral.coding.streams`)
8                     fingerprint of the model: the first bytes of a SHA-256
4                     probe: the first bytes of a SHA-256 over the bits of some of the model's probabilities
4                     digest: the first bytes of a SHA-256 over the decoded values
1 + ...               count of numbers, then each: their meaning depends on the kind
1 + ...               count of sections, then each: ``2 * length + packed`` and its bytes; their meaning depends on
                      the kind; the bytes are deflated (zlib) where ``packed`` is 1, which the last never is
4                     CRC-32 of everything before, little-endian
====================  =====================================================================================

Counts, numbers and lengths are unsigned LEB128 (seven bits a byte, lowest first, the top bit set on all but the
last byte). Nothing may follow the checksum. A later version may change everything behind the version byte.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from ancestral.errors import StreamError

MAGIC = b"ANCS"
VERSION = 1
ITEMS, STREAMS = 1, 2

DAMAGED = "the stream is damaged or cut short (its checksum does not match); get an intact copy"
_FIXED = 22
"""Bytes before the first number."""


@dataclass(frozen=True)
class Container:
    """What a compressed file holds; see the module for the bytes.

    Attributes:
        kind: 1 items, 2 streams.
        fingerprint: 8 bytes.
        probe: 4 bytes.
        digest: 4 bytes.
        numbers: unsigned integers.
        sections: byte strings; the last one is the range coder's code.
    """

    kind: int
    fingerprint: bytes
    probe: bytes
    digest: bytes
    numbers: tuple[int, ...]
    sections: tuple[bytes, ...]

    @property
    def code_bits(self) -> int:
        """Bits of the code itself, without header, side data and checksum: what ``-log2 p`` predicts."""
        return 8 * len(self.sections[-1])


def pack(content: Container) -> bytes:
    """The bytes of ``content``."""
    if (len(content.fingerprint), len(content.probe), len(content.digest)) != (8, 4, 4):
        raise ValueError("fingerprint, probe and digest have 8, 4 and 4 bytes")
    out = bytearray(MAGIC + bytes([VERSION, content.kind]) + content.fingerprint + content.probe + content.digest)
    out += varint(len(content.numbers))
    for number in content.numbers:
        out += varint(number)
    out += varint(len(content.sections))
    for place, section in enumerate(content.sections, 1):
        code = place == len(content.sections)  # dense already: deflating it would cost time, and hide its size
        small = section if code or len(section) <= 16 else zlib.compress(section, 9)
        packed = len(small) < len(section)
        stored = small if packed else section
        out += varint(2 * len(stored) + packed) + stored
    out += zlib.crc32(out).to_bytes(4, "little")
    return bytes(out)


def unpack(blob: bytes, most: int | None = None) -> Container:
    """The content of ``blob``.

    Args:
        blob: the bytes.
        most: bytes that a section may have once it is inflated; None for any number.

    Raises:
        StreamError: not such bytes, of a later version, cut short, damaged, or larger than ``most``.
    """
    blob = bytes(blob)
    if not blob.startswith(MAGIC):
        raise StreamError(
            "this is not a stream that ancestral compressed (its first bytes are wrong); give the file that compress "
            "wrote"
        )
    if len(blob) < _FIXED + 6:
        raise StreamError(DAMAGED)
    if zlib.crc32(blob[:-4]) != int.from_bytes(blob[-4:], "little"):
        # A later version may keep its checksum elsewhere: its number decides which sentence helps.
        raise StreamError(_later(blob[4]) if blob[4] > VERSION else DAMAGED)
    if blob[4] != VERSION:
        raise StreamError(_later(blob[4]) if blob[4] > VERSION else DAMAGED)
    body, at = blob[:-4], _FIXED
    numbers, sections = [], []
    count, at = read_varint(body, at)
    for _ in range(count):
        number, at = read_varint(body, at)
        numbers.append(number)
    count, at = read_varint(body, at)
    for _ in range(count):
        size, at = read_varint(body, at)
        section = body[at : at + size // 2]
        if len(section) != size // 2:
            raise StreamError(DAMAGED)
        at += size // 2
        try:
            sections.append(_inflate(section, most) if size % 2 else section)
        except zlib.error as error:
            raise StreamError(DAMAGED) from error
    if at != len(body):
        raise StreamError(DAMAGED)
    return Container(body[5], body[6:14], body[14:18], body[18:22], tuple(numbers), tuple(sections))


def _inflate(section: bytes, most: int | None) -> bytes:
    if most is None:
        return zlib.decompress(section)
    inflater = zlib.decompressobj()
    data = inflater.decompress(section, most + 1)
    if len(data) > most:
        raise StreamError(f"the stream has a part of more than {most} bytes, which is refused here")
    if not inflater.eof:
        raise StreamError(DAMAGED)
    return data


def claimed(blob: bytes, most: int) -> tuple[int, int]:
    """How many items and how many symbols or lanes a stream says that it holds, before anything is decoded.

    What comes from strangers can say anything; compare with what you would decode at most.

    Args:
        blob: the bytes.
        most: bytes that a section may have once it is inflated.

    Raises:
        StreamError: as :func:`unpack`.
    """
    content = unpack(blob, most)
    items = content.numbers[1] if len(content.numbers) > 1 else 0
    if content.kind != STREAMS or len(content.sections) < 3:
        return items, items
    lengths, lanes = (read_varints(section) for section in content.sections[1:3])
    return items, max(sum(lengths), sum(lanes))


def _later(version: int) -> str:
    return f"the stream has format version {version} and this ancestral reads up to {VERSION}; update ancestral"


def varint(number: int) -> bytes:
    """Unsigned LEB128 of ``number``."""
    if number < 0:
        raise ValueError(f"only unsigned numbers can be written, got {number}")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where the next thing begins.

    Raises:
        StreamError: the bytes end, or the number has more than 64 bits.
    """
    number = 0
    for place in range(10):
        if at + place >= len(data):
            break
        byte = data[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise StreamError(DAMAGED)


def varints(numbers: list[int]) -> bytes:
    """Several numbers in a row."""
    return b"".join(map(varint, numbers))


def read_varints(data: bytes) -> list[int]:
    """All numbers of ``data``."""
    numbers, at = [], 0
    while at < len(data):
        number, at = read_varint(data, at)
        numbers.append(number)
    return numbers
