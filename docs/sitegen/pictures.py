"""Pictures of orders: every site of a grid coloured and numbered by its rank, as SVG without a plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from ancestral.order import Order

CELL, GAP, TITLE = 19, 22, 34
STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Colours from the first set to the last: dark to bright, told apart by readers with any colour vision."""


@dataclass(frozen=True)
class Panel:
    """One order on one grid, or on several grids side by side (a pyramid)."""

    title: str
    about: str
    order: Order
    grids: tuple[tuple[int, int], ...] = ((8, 8),)


def panels() -> list[Panel]:
    """The orders of :class:`ancestral.order.Order` on 8 x 8 sites."""
    side, n = 8, 64
    scales = (1, 2, 4, 8)
    found = [
        Panel("raster", "next token", Order.raster(n)),
        Panel("reverse", "last token first", Order.reverse(n)),
        Panel("random", "any order", Order.random(n)),
        Panel("hilbert", "space-filling curve", Order.hilbert(side, side)),
        Panel("frequency", "zig-zag over a DCT", Order.frequency(side, side)),
        Panel("diagonals", "frequencies of a kind", Order.frequency(side, side, parallel=True)),
        Panel("neighbour", "Manhattan distance", Order.neighbour(side, side)),
        Panel("cells", "next patch of 4 x 4", Order.cells(side, side, 4)),
        Panel("parallel", "distant sites together", Order.parallel(side, side, 2)),
        Panel("masks", "random, cosine schedule", Order.masks(n, 8)),
        Panel("frames", "one frame (here a row)", Order.frames(side, side)),
        Panel("single", "everything at once", Order.single(n)),
    ]
    pyramid = Panel("scales", "next scale: 1, 2, 4, 8", Order.scales(scales), tuple((s, s) for s in scales))
    return [*found, pyramid]


def colour(share: float) -> tuple[str, str]:
    """Fill of a rank at ``share`` of the way from the first set to the last, and a text colour readable on it."""
    place = min(max(share, 0.0), 1.0) * (len(STOPS) - 1)
    index = min(int(place), len(STOPS) - 2)
    part = place - index
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(STOPS[index], STOPS[index + 1]))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    return f"#{red:02x}{green:02x}{blue:02x}", "#222" if bright else "#eee"


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    sets = panel.order.n_sets
    count = f"{sets} set{'s' if sets > 1 else ''}"
    lines = [
        f'<text x="{left}" y="{top + 11}" class="t">{escape(panel.title)}</text>',
        f'<text x="{left + 8 * CELL}" y="{top + 11}" class="a" text-anchor="end">{count}</text>',
        f'<text x="{left}" y="{top + 26}" class="a">{escape(panel.about)}</text>',
    ]
    rank = panel.order.rank.tolist()
    tallest = max(height for height, _ in panel.grids)
    site, x0 = 0, left
    for height, width in panel.grids:
        y0 = top + TITLE + (tallest - height) * CELL
        for row in range(height):
            for column in range(width):
                fill, ink = colour(rank[site] / max(sets - 1, 1))
                x, y = x0 + column * CELL, y0 + row * CELL
                lines.append(f'<rect x="{x}" y="{y}" width="{CELL - 1}" height="{CELL - 1}" fill="{fill}"/>')
                lines.append(f'<text x="{x + 9}" y="{y + 12}" class="n" fill="{ink}">{rank[site]}</text>')
                site += 1
        x0 += width * CELL + 10
    return lines


def orders_svg(shown: Sequence[Panel] | None = None, columns: int = 4) -> str:
    """All panels on one sheet; the number in a site is the set in which it is drawn."""
    chosen = panels() if shown is None else list(shown)
    wide, high = 8 * CELL + GAP, 8 * CELL + TITLE + GAP
    parts = []
    for index, panel in enumerate(chosen):
        parts += _panel(panel, (index % columns) * wide, (index // columns) * high)
    rows = -(-len(chosen) // columns)
    width, height = columns * wide, rows * high
    # Greys that can be read on white and on black, since the page's own colours do not reach into the image.
    style = (
        "text{font-family:system-ui,sans-serif}.t{font-size:13px;font-weight:600;fill:#888}"
        ".a{font-size:10px;fill:#888}.n{font-size:8px;text-anchor:middle}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="Orders on a grid of 8 x 8 sites"><style>{style}</style>{"".join(parts)}</svg>\n'
    )
