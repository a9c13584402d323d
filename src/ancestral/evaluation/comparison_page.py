"""A comparison of recipes as one self-contained HTML page: a table, a picture of cost against quality, and samples."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ancestral.data import Dataset, Images
from ancestral.evaluation.comparison import Comparison, Contender
from ancestral.evaluation.page import document, figures, pairs, ticks
from ancestral.evaluation.pictures import inline, sheet

_TITLES = {
    "frechet": "Fréchet distance",
    "frechet_limit": "Fréchet distance, extrapolated",
    "kernel": "kernel distance",
    "inception_score": "inception-style score",
    "accuracy": "class accuracy",
    "reconstruction": "rFID of the tokenizer",
    "auc": "two-sample AUC",
    "marginal": "column distance",
}
_STYLE = """
main { max-width:72rem; }
.wide { width:100%; } .wide th, .wide td { padding:.38rem 1rem .38rem 0; border-bottom:1px solid var(--line); }
.wide th { vertical-align:bottom; } .wide td.n, .wide th.n { text-align:right; white-space:nowrap; padding-right:0;
  padding-left:1.1rem; }
.wide th.n { white-space:normal; max-width:6.5rem; }
.wide td.top { font-weight:600; color:var(--accent); } .wide tr.real td { color:var(--soft); font-style:italic; }
.wide td:first-child { white-space:nowrap; } .wide a { color:inherit; text-decoration-color:var(--line); }
.board { display:grid; grid-template-columns:repeat(auto-fill,minmax(15rem,1fr)); gap:1.8rem 1.6rem; }
.board.text { grid-template-columns:repeat(auto-fill,minmax(22rem,1fr)); }
.board figure { margin:0; min-width:0; } .board h3 { font-size:1rem; margin:0; font-weight:600; }
.board p { margin:0 0 .5rem; font-size:.8rem; color:var(--soft); line-height:1.4; }
.board img { width:100%; height:auto; image-rendering:pixelated; border:1px solid var(--edge); display:block; }
.board pre { max-height:20rem; overflow:auto; white-space:pre-wrap; font-size:12px; margin:0; }
.board .scroll { max-height:20rem; overflow:auto; border:1px solid var(--line); }
.board .scroll table { font-size:.76rem; }
.board .scroll td, .board .scroll th { padding:.15rem .5rem; white-space:nowrap; }
.missing { border-left:3px solid var(--second); padding:.1rem 0 .1rem .9rem; color:var(--soft); font-size:.86rem; }
.plot svg { max-width:44rem; } .plot circle { fill:var(--accent); } .plot .name { fill:var(--ink); }
.about td:first-child { white-space:nowrap; }
"""


def page(found: Comparison, title: str, card: Sequence[tuple[str, str]] = ()) -> str:
    """The whole page as HTML.

    Args:
        found: from :func:`ancestral.evaluation.comparison.compare`.
        title: heading.
        card: (name, value) of the run.
    """
    done = [row for row in found.rows if not row.failed]
    lead = (
        f"{len(found.rows)} recipes, each trained for {found.minutes:g} minutes on the same {found.trained:,} items "
        f"and held against {found.reference}, which none of them saw."
    )
    parts = [
        f"<h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p>",
        figures(_headlines(found, done)) if done else "",
        "<h2>Table</h2>",
        _table(found, done),
        *(
            f"<p class=missing><b>{escape(row.recipe)}</b>: not measured: {escape(row.failed)}</p>"
            for row in found.rows
            if row.failed
        ),
        "<h2>Cost and quality</h2>" + _scatter(found, done) if len(done) > 1 else "",
        "<h2>Side by side</h2>",
        _board(found, done),
        "<h2>What the columns say</h2>",
        pairs([(_title(name), about) for name, (about, _) in found.measures.items()], "pairs about"),
        "<h2>How it was done</h2>",
        pairs(
            [
                *card,
                ("reference set", found.reference),
                *([("feature network", found.network)] if found.network else []),
                ("seed", str(found.seed)),
            ]
        ),
    ]
    return document(title, "".join(parts), _STYLE)


def _title(name: str) -> str:
    return _TITLES.get(name, name.replace("_", " "))


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    if value == 0 or 0.001 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.2e}"


def _leader(found: Comparison, done: Sequence[Contender], name: str) -> Contender | None:
    """The row with the best value of a measure; None where no way is better, or bits are not of the same thing."""
    best = found.measures[name][1]
    rows = [row for row in done if name in row.quality and math.isfinite(row.quality[name])]
    if not best or len(rows) < 2 or (name == "bits" and len({row.bits_of for row in rows}) > 1):
        return None
    return (min if best == "low" else max)(rows, key=lambda row: row.quality[name])


def _headlines(found: Comparison, done: Sequence[Contender]) -> list[tuple[str, str]]:
    name = found.best()
    out = []
    leader = _leader(found, done, name)
    if leader is not None:
        out.append((leader.recipe, f"has the best {_title(name)}: {_number(leader.quality[name])}"))
    fast = min(done, key=lambda row: row.seconds)
    out.append((fast.recipe, f"draws fastest: {_time(fast.seconds)} per item"))
    few = min(done, key=lambda row: row.passes)
    out.append((few.recipe, f"needs the fewest forward passes: {few.passes:g}"))
    return out


def _time(seconds: float) -> str:
    return (
        f"{seconds:.3g} s"
        if seconds >= 1
        else f"{seconds * 1e3:.3g} ms"
        if seconds >= 1e-3
        else f"{seconds * 1e6:.3g} µs"
    )


def _table(found: Comparison, done: Sequence[Contender]) -> str:
    names = [n for n in found.measures if any(n in row.quality for row in done)]
    if any("reconstruction" in row.quality for row in done):
        found.measures.setdefault(
            "reconstruction", ("Frechet distance between images and their reconstructions", "low")
        )
        names = list(dict.fromkeys([*names, "reconstruction"]))
    leaders = {name: _leader(found, done, name) for name in names}
    head = ["parameters", "steps", "passes", "time per item", *map(_title, names)]
    body = []
    for row in done:
        extra = f" + {row.tokenizer_parameters:,}" if row.tokenizer_parameters else ""
        cells = [f"{row.parameters:,}{extra}", f"{row.steps:,}", f"{row.passes:g}", _time(row.seconds)]
        numbers = []
        for name in names:
            mark = " top" if leaders[name] is row else ""
            text = _number(row.quality.get(name))
            if name == "bits" and text:
                text += {"lower_bound": " at most", "estimate": " about"}.get(row.score_kind, "")
                text += f" ({row.bits_of})" if row.bits_of not in ("", "items") else ""
            numbers.append(f'<td class="n{mark}">{escape(text)}</td>')
        plain = "".join(f"<td class=n>{escape(c)}</td>" for c in cells)
        body.append(
            f'<tr><td><a href="#{escape(row.recipe)}">{escape(row.recipe)}</a></td>{plain}{"".join(numbers)}</tr>'
        )
    if found.floor:
        real = "<td class=n></td>" * 4 + "".join(f"<td class=n>{_number(found.floor.get(n))}</td>" for n in names)
        body.append(f"<tr class=real><td>real items</td>{real}</tr>")
    heads = "".join(f"<th class=n>{escape(h)}</th>" for h in head)
    note = "Forward passes are of the network, for a batch of items; the time is wall-clock time per item."
    if any(row.tokenizer_parameters for row in done):
        note += " After the plus: weights of a learned tokenizer."
    if found.floor:
        note += (
            " Real items: the same measures of training items in place of drawn ones, which no model is expected to "
        )
        note += "beat."
    return (
        f"<div class=scroll><table class=wide><tr><th>recipe</th>{heads}</tr>{''.join(body)}</table></div>"
        f"<p class=note>{escape(note)}</p>"
    )


def _scatter(found: Comparison, done: Sequence[Contender]) -> str:
    """Seconds per item (logarithmic) against the first measure."""
    name = found.best()
    rows = [row for row in done if row.quality.get(name, math.nan) > 0 and row.seconds > 0]
    if len(rows) < 2:
        return "<p class=note>Too few recipes have both numbers.</p>"
    width, height, left, right, top, bottom = 640, 330, 58, 20, 16, 44
    xs, ys = [math.log10(r.seconds) for r in rows], [r.quality[name] for r in rows]
    logarithmic = max(ys) > 20 * min(ys)
    ys = [math.log10(y) for y in ys] if logarithmic else ys
    low_x, high_x = min(xs) - 0.2, max(xs) + 0.55  # room for names
    pad = 0.1 * (max(ys) - min(ys)) or 0.1
    low_y, high_y = min(ys) - pad, max(ys) + pad

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (x - low_x) / (high_x - low_x),
            top + (height - top - bottom) * (high_y - y) / (high_y - low_y),
        )

    parts = []
    for tick in ticks(low_y, high_y):
        _, y = at(low_x, tick)
        parts.append(f'<line class=axis x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        shown = 10**tick if logarithmic else tick
        parts.append(f'<text x="{left - 7}" y="{y + 4:.1f}" text-anchor="end">{shown:.3g}</text>')
    for power in range(math.ceil(low_x * 2), math.floor(high_x * 2) + 1):
        x, _ = at(power / 2, low_y)
        parts.append(f'<line class=axis x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{height - bottom + 17}" text-anchor="middle">{_time(10 ** (power / 2))}</text>'
        )
    parts.append(f'<text x="{width - right}" y="{height - 6}" text-anchor="end">time per item (logarithmic)</text>')
    taken: list[tuple[float, float]] = []
    for row, x_, y_ in sorted(zip(rows, xs, ys, strict=True), key=lambda r: r[2]):
        x, y = at(x_, y_)
        base = y + 4
        while any(abs(base - other) < 13 and abs(x - where) < 110 for where, other in taken):
            base += 13
        taken.append((x, base))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{escape(row.recipe)}</title></circle>')
        parts.append(f'<text class=name x="{x + 9:.1f}" y="{base:.1f}">{escape(row.recipe)}</text>')
    label = escape(f"{_title(name)} against time per item")
    which = {"low": "lower", "high": "higher"}.get(found.measures[name][1], "")
    scale = ", logarithmic" if logarithmic else ""
    return (
        f'<figure class=plot><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
        f"<figcaption>Upwards: {escape(_title(name))} ({which} is better{scale}).</figcaption></figure>"
    )


def _board(found: Comparison, done: Sequence[Contender]) -> str:
    cards = [("real items", "held out", "", found.real)]
    name = found.best()
    for row in done:
        facts = f"{_title(name)} {_number(row.quality.get(name))}, {row.passes:g} passes, {_time(row.seconds)}"
        cards.append((row.recipe, row.summary, facts, row.drawn))  # type: ignore[arg-type]
    kind = "" if found.modality == "images" else " text"
    made = "".join(
        f'<figure id="{escape(name)}"><h3 class=sans>{escape(name)}</h3><p class=sans>{escape(facts or about)}'
        f"</p>{_items(items)}{f'<figcaption>{escape(about)}</figcaption>' if facts else ''}</figure>"
        for name, about, facts, items in cards
    )
    return f'<div class="board{kind}">{made}</div>'


def _items(items: Dataset | None) -> str:
    """Some items as HTML."""
    if items is None or len(items) == 0:
        return "<p>none</p>"
    if isinstance(items, Images):
        return f'<img alt="{len(items)} images" src="{inline(_sheet(items))}">'
    if items.modality == "table":
        frame: Any = items.take(slice(0, 12)).native()
        head = "".join(f"<th>{escape(str(c))}</th>" for c in frame.columns)
        rows = "".join(
            f"<tr>{''.join(f'<td>{escape(str(v))}</td>' for v in r)}</tr>" for r in frame.astype(object).values
        )
        return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"
    if items.modality == "audio":
        clips: Any = items
        sounds = [base64.b64encode(clips.wav(i)).decode("ascii") for i in range(min(3, len(items)))]
        return "".join(f'<audio controls src="data:audio/wav;base64,{s}"></audio>' for s in sounds)
    payloads = getattr(items, "payloads", None)
    if payloads is not None:
        texts = [p.decode("utf-8", "replace")[:600] for p in payloads[:4]]
    else:
        texts = [" ".join(map(str, item)) for item in items.take(slice(0, 12)).native()]
    clean = ["".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text) for text in texts]
    return f"<pre>{escape((chr(10) * 2).join(clean))}</pre>"


def _sheet(items: Images) -> bytes:
    buffer = io.BytesIO()
    side = max(items.pixels.shape[1:3])
    columns = 10 if len(items.classes) in (0, 10) or len(items.classes) > 12 else len(items.classes)
    sheet(items, min(columns, len(items)), side).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
