"""The text of symbols as they are drawn: whole characters, and nothing from a stop sequence on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

from ancestral.decoding.continuous import Drawn


@dataclass
class Piece:
    """Text that may be shown, and the symbols that it came from.

    Attributes:
        text: whole characters.
        drawn: symbols whose text begins in it, or earlier and has not been reported.
        offsets: where the text of each symbol begins, in characters.
    """

    text: str = ""
    drawn: list[Drawn] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


class Detokeniser:
    """Turns symbols into text one by one.

    Text that may be the beginning of a stop sequence is held back until it is clear whether it is one, and bytes until
    they make a character (or cannot: U+FFFD).

    Args:
        spelling: the bytes of every symbol; those without an entry are spelled as nothing.
        stops: sequences that end the text; the first to be complete is left out with all that follows.
    """

    def __init__(self, spelling: Sequence[bytes], stops: Sequence[str] = ()):
        self.spelling, self.stops = spelling, [stop for stop in stops if stop]
        self.stopped = False
        self.count = 0
        """Symbols taken in, up to the one that completed a stop sequence."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._given = 0  # characters given out
        self._pending: list[tuple[int, Drawn]] = []

    def add(self, drawn: Drawn) -> Piece:
        """Take in a symbol; what may be shown now."""
        if self.stopped:
            return Piece()
        self.count += 1
        self._pending.append((self._given + len(self._held), drawn))
        known = drawn.finish != "end" and drawn.symbol < len(self.spelling)
        self._held += self._decoder.decode(self.spelling[drawn.symbol] if known else b"", bool(drawn.finish))
        found = [place for place in (self._held.find(stop) for stop in self.stops) if place >= 0]
        if found:
            self.stopped = True
            return self._give(min(found), last=True)
        if drawn.finish:
            return self._give(len(self._held), last=True)
        return self._give(len(self._held) - self._tail())

    def _tail(self) -> int:
        """Characters at the end that may begin a stop sequence."""
        longest = max((len(stop) for stop in self.stops), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self.stops):
                return size
        return 0

    def _give(self, size: int, last: bool = False) -> Piece:
        piece = Piece(self._held[:size])
        self._given += size
        self._held = "" if last else self._held[size:]
        ready = [
            (at, drawn) for at, drawn in self._pending if at < self._given or (not self.stopped and not self._held)
        ]
        self._pending = [] if last else self._pending[len(ready) :]
        piece.offsets, piece.drawn = [at for at, _ in ready], [drawn for _, drawn in ready]
        return piece


def spelled(spelling: Sequence[bytes], symbol: int) -> str:
    """A symbol on its own, as text; ``bytes:`` and hexadecimal digits where it is no whole character."""
    raw = spelling[symbol] if symbol < len(spelling) else b""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
