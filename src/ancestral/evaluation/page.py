"""What pages of results share: style, frame, large figures, tables of facts, ticks of axes, colours of heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

STYLE = """
:root { color-scheme: light dark; --paper:#fbfaf7; --ink:#1d1c1a; --soft:#6a675f; --line:#dcd8cf; --tint:#f1eee7;
  --accent:#1f5fa8; --second:#c2571a; --flip:0; --edge:#dcd8cf; }
@media (prefers-color-scheme: dark) { :root { --paper:#161718; --ink:#e9e6df; --soft:#a09c92; --line:#35373a;
  --tint:#1f2123; --accent:#77aee8; --second:#eb9a5f; --flip:1; --edge:#c4c2be; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--paper); color:var(--ink); line-height:1.55;
  font-family: Charter, "Bitstream Charter", "Iowan Old Style", Georgia, serif; font-size:17px; }
main { max-width:54rem; margin:0 auto; padding:3rem 1.25rem 5rem; }
h1 { font-size:2.1rem; line-height:1.15; margin:0 0 .6rem; font-weight:600; letter-spacing:-.01em; }
h2 { font-size:1.3rem; margin:3.2rem 0 .5rem; padding-top:1rem; border-top:1px solid var(--line); font-weight:600; }
p { margin:.5rem 0 1rem; max-width:42rem; } .lead { font-size:1.1rem; }
.soft, figcaption, th, .note { color:var(--soft); } figcaption, .note { font-size:.86rem; }
figure { margin:1.2rem 0; } figcaption { margin-top:.5rem; max-width:42rem; }
.sans, table, svg text, .figures { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.figures { display:grid; grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr)); gap:1rem; margin:2rem 0 0; }
.figures div { border-top:3px solid var(--accent); padding-top:.6rem; }
.figures b { display:block; font-size:1.75rem; font-weight:600; line-height:1.2; font-variant-numeric:tabular-nums; }
.figures span { font-size:.84rem; color:var(--soft); }
img.d { image-rendering:pixelated; filter:invert(var(--flip)); display:block; background:#fff; }
.samples { display:grid; grid-template-columns:repeat(auto-fill,minmax(23rem,1fr)); gap:.55rem 2rem; }
.samples div { display:flex; align-items:center; gap:.8rem; }
.samples b { width:1.2rem; text-align:right; font-weight:600; }
.samples img { width:calc(100% - 2rem); height:auto; border:1px solid var(--edge); }
.scroll { overflow-x:auto; }
table { border-collapse:collapse; font-size:.9rem; font-variant-numeric:tabular-nums; }
th { text-align:left; font-weight:500; font-size:.82rem; }
.fill td, .fill th { padding:.25rem .9rem .25rem 0; }
.fill img { width:54px; height:54px; border:1px solid var(--edge); }
.fill .draws img { display:inline-block; margin-right:6px; vertical-align:top; } .fill .draws { white-space:nowrap; }
.fill img.hidden { background:repeating-linear-gradient(45deg,#fff 0 3px,#d2d2d2 3px 6px); }
.rates { width:100%; } .rates td, .rates th { padding:.32rem .8rem .32rem 0; border-bottom:1px solid var(--line); }
.rates th { white-space:nowrap; }
.rates td.n { text-align:right; white-space:nowrap; } .rates td.bar { width:42%; padding-right:0; }
.rates i { display:block; height:.95rem; background:var(--soft); opacity:.5; border-radius:1px; }
.rates i.over { background:linear-gradient(90deg,var(--soft) 75%,transparent); }
.rates tr.ours td { font-weight:600; } .rates tr.ours i { background:var(--accent); opacity:1; }
.rates .note { display:block; font-weight:400; }
.pairs td { padding:.3rem 1.6rem .3rem 0; border-bottom:1px solid var(--line); vertical-align:top; }
.pairs.short td:last-child { white-space:nowrap; text-align:right; padding-right:0; } .pairs.short { width:100%; }
.pairs td:first-child { color:var(--soft); white-space:nowrap; }
pre { background:var(--tint); border:1px solid var(--line); border-radius:4px; padding:.8rem 1rem; overflow-x:auto;
  font:14px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; margin:.3rem 0 1.2rem; }
code { font:.88em ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
svg { display:block; width:100%; height:auto; } svg text { fill:var(--soft); font-size:12px; }
svg .axis { stroke:var(--line); stroke-width:1; } svg path { fill:none; stroke-width:2; stroke-linejoin:round; }
.two { display:grid; grid-template-columns:repeat(auto-fit,minmax(19rem,1fr)); gap:0 2.5rem; align-items:start; }
.two h2 { margin-bottom:.5rem; }
@media (max-width:34rem) { body { font-size:16px; } main { padding-top:1.8rem; } h1 { font-size:1.7rem; }
  .samples { grid-template-columns:1fr; } .rates td.bar { width:24%; } .fill img { width:36px; height:36px; }
  .pairs td:first-child { white-space:normal; } .rates td, .rates th { padding-right:.5rem; } }
@media print { main { padding:0; } h2 { break-after:avoid; } figure { break-inside:avoid; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """A self-contained HTML page.

    Args:
        title: of the window.
        body: HTML.
        style: CSS after the common one.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


def figures(rows: Sequence[tuple[str, str]]) -> str:
    """Large numbers with their captions."""
    return (
        f"<div class=figures>{''.join(f'<div><b>{escape(n)}</b><span>{escape(c)}</span></div>' for n, c in rows)}</div>"
    )


def pairs(rows: Sequence[tuple[str, str]], kind: str = "pairs") -> str:
    """A table of names and values."""
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<table class="{kind}">{body}</table>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(f for f in (1, 2, 5, 10) if f * step >= raw)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def colour(share: float) -> tuple[str, str]:
    """Background from pale to deep blue for a share in [0, 1], and the colour of text on it."""
    stops = np.array([[0xEE, 0xF3, 0xF8], [0x8F, 0xB9, 0xDF], [0x2A, 0x6F, 0xB5], [0x0B, 0x2A, 0x55]], float)
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    i = min(int(place), len(stops) - 2)
    red, green, blue = stops[i] + (stops[i + 1] - stops[i]) * (place - i)
    return f"rgb({red:.0f},{green:.0f},{blue:.0f})", "#fff" if share > 0.5 else "#1d2a3a"
