"""The quality report of a table's model as one self-contained HTML page: no external resource, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from ancestral.evaluation import tables
from ancestral.evaluation.page import colour, document, figures, pairs, ticks
from ancestral.evaluation.quality import Quality

_MOST_COLUMNS = 60  # on the page; of wider tables the worst are shown
_STYLE = """
.cards { display:grid; grid-template-columns:repeat(auto-fill,minmax(15.5rem,1fr)); gap:1.5rem 1.8rem; }
.cards figure { margin:0; min-width:0; }
.cards h3 { font-size:.95rem; margin:0; font-weight:600; overflow-wrap:anywhere; }
.cards p { margin:0 0 .3rem; font-size:.78rem; color:var(--soft); font-variant-numeric:tabular-nums; }
.cards svg text { font-size:11px; }
.real { fill:var(--accent); opacity:.55; } .drawn { fill:var(--second); opacity:.85; }
.legend { display:flex; gap:1.4rem; font-size:.86rem; color:var(--soft); margin:.2rem 0 1.2rem; flex-wrap:wrap; }
.legend i { display:inline-block; width:.8rem; height:.8rem; margin-right:.4rem;
  vertical-align:-.06rem; border-radius:1px; }
.bars { width:100%; } .bars td { padding:.26rem .8rem .26rem 0; border-bottom:1px solid var(--line); }
.bars td:first-child { overflow-wrap:anywhere; } .bars td.n { text-align:right; white-space:nowrap; width:5rem; }
.bars td.bar { width:48%; padding-right:0; }
.bars i { display:block; height:.8rem; background:var(--accent); border-radius:1px; }
.bars i.soft { background:var(--soft); opacity:.5; }
.wide { width:100%; } .wide th, .wide td { padding:.3rem .9rem .3rem 0; border-bottom:1px solid var(--line); }
.wide td.n, .wide th.n { text-align:right; white-space:nowrap; } .wide td { overflow-wrap:anywhere; }
.missing { border-left:3px solid var(--second); padding:.1rem 0 .1rem .9rem; color:var(--soft); }
.plot svg { max-width:34rem; } svg path.area { stroke:none; }
"""
_LEGEND = (
    '<div class="legend sans"><span><i style="background:var(--accent);opacity:.55"></i>real</span>'
    '<span><i style="background:var(--second)"></i>synthetic</span></div>'
)


def page(quality: Quality, title: str, card: Sequence[tuple[str, str]]) -> str:
    """The whole page as HTML.

    Args:
        quality: from :func:`ancestral.evaluation.quality.measure`.
        title: heading.
        card: (name, value) of the model.
    """
    rows = f"{len(quality.real):,} real rows that it should not have seen and {len(quality.synthetic):,} that it drew"
    parts = [
        f"<h1>{escape(title)}</h1><p class=lead>The model, held against {rows}.</p>",
        figures(_headlines(quality)),
        "<h2>Column by column</h2><p>How often each value occurs. The distance is 0 where the two are alike and 1 "
        "where they have nothing in common; in brackets, what chance alone makes of two samples of real rows. "
        "The outermost bars of a histogram hold what lies beyond them.</p>",
        _LEGEND,
        _columns(quality),
        "<h2>Pair by pair</h2>",
        _pairs(quality),
        "<h2>Can a classifier tell them apart?</h2>",
        _auc(quality),
        "<h2>Are synthetic rows as good to learn from?</h2>",
        _worth(quality),
        "<h2>Does it give anybody away?</h2>",
        _privacy(quality),
        "<h2>How well it predicts unseen rows</h2>",
        _bits(quality),
        "<div class=two><section><h2>Model</h2>",
        pairs(card),
        "</section><section><h2>Time</h2>",
        pairs([(what, f"{seconds:.1f} s") for what, seconds in quality.seconds], "pairs short"),
        "</section></div>",
        _others(quality),
    ]
    return document(title, "".join(parts), _STYLE)


def _headlines(quality: Quality) -> list[tuple[str, str]]:
    rows = []
    if quality.auc is not None:
        rows.append((f"{quality.auc:.3f}", "a classifier’s AUC between real and synthetic rows; 0.5 is a coin"))
    if quality.worth is not None and quality.worth_real is not None:
        what = "AUC" if "ROC" in quality.worth_name else "R²"
        caption = f"{what} on {quality.target} after training on synthetic rows ({quality.worth_real:.3f} on real ones)"
        rows.append((f"{quality.worth:.3f}", caption))
    if quality.privacy is not None:
        caption = f"of the synthetic rows copy a training row ({quality.privacy.real_copies:.2%} of fresh real rows do)"
        rows.append((f"{quality.privacy.copies:.2%}", caption))
    if quality.row_bits is not None:
        rows.append((f"{quality.row_bits:.1f}", "bits to tell an unseen row"))
    return rows


def _absent(quality: Quality, section: str) -> str:
    return f"<p class=missing>Not measured: {escape(quality.notes.get(section, 'no reason given'))}.</p>"


# -- columns


def _columns(quality: Quality) -> str:
    names = list(quality.kinds)
    aside = ""
    if len(names) > _MOST_COLUMNS:
        names = sorted(names, key=lambda n: -quality.marginals[n])[:_MOST_COLUMNS]
        aside = f"<p class=note>The {_MOST_COLUMNS} worst of {len(quality.kinds)} columns.</p>"
    cards = []
    for name in names:
        kind = quality.kinds[name]
        draw = _categories if kind == "words" else _histogram
        facts = f"distance {quality.marginals[name]:.3f} ({quality.floor[name]:.3f})"
        cards.append(
            f"<figure><h3 class=sans>{escape(name)}</h3><p class=sans>{facts}</p>{draw(quality, name)}</figure>"
        )
    return aside + f"<div class=cards>{''.join(cards)}</div>"


def _histogram(quality: Quality, name: str) -> str:
    """Two outlined histograms over the range that holds nearly all real values."""
    kind = quality.kinds[name]
    real, drawn = (tables.numbers(f[name], kind) for f in (quality.real, quality.synthetic))
    known = real[~np.isnan(real)]
    if not len(known):
        return "<p>no known cells</p>"
    low, high = (float(v) for v in np.quantile(known, [0.002, 0.998]))
    if high <= low:
        low, high = float(known.min()), float(known.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    if bool((known == np.round(known)).all()):
        low, high = float(np.floor(low)), float(np.ceil(high))
    levels = np.unique(known[(known >= low) & (known <= high)])
    # Few levels get a bar each; otherwise bars would beat against whole numbers.
    whole = len(levels) > 1 and bool((levels == np.round(levels)).all()) and high - low < 200
    count = int(high - low) + 1 if whole else 40
    step = int(np.ceil(count / 40)) if whole else 0
    edges = np.arange(low - 0.5, high + step + 0.5, step) if whole else np.linspace(low, high, count + 1)
    shares = [np.histogram(np.clip(v[~np.isnan(v)], edges[0], edges[-1]), edges)[0] / len(v) for v in (real, drawn)]
    width, height, base = 260, 96, 78
    top = max(float(s.max()) for s in shares) or 1.0
    x = (np.array(edges) - edges[0]) / (edges[-1] - edges[0]) * width
    bars = "".join(
        f'<rect class=real x="{x[i]:.1f}" y="{base - 70 * s / top:.1f}" width="{max(x[i + 1] - x[i] - 0.4, 0.4):.1f}" '
        f'height="{70 * s / top:.1f}"/>'
        for i, s in enumerate(shares[0])
    )
    line = f"M0 {base}" + "".join(
        f"L{x[i]:.1f} {base - 70 * s / top:.1f}L{x[i + 1]:.1f} {base - 70 * s / top:.1f}"
        for i, s in enumerate(shares[1])
    )
    marks = "".join(
        f'<text x="{at:.0f}" y="{height - 2}" text-anchor="{anchor}">{escape(_value(value, kind))}</text>'
        for at, anchor, value in ((0, "start", low), (width, "end", high))
    )
    gaps = [float(np.isnan(v).mean()) for v in (real, drawn)]
    lost = f"<p class=sans>missing {gaps[0]:.1%} real, {gaps[1]:.1%} synthetic</p>" if max(gaps) > 0 else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="histogram of {escape(name)}">{bars}'
        f'<path d="{line}L{width} {base}" stroke="var(--second)" style="stroke-width:1.4"/>'
        f'<line class=axis x1="0" x2="{width}" y1="{base}" y2="{base}"/>{marks}</svg>{lost}'
    )


def _value(value: float, kind: str) -> str:
    if kind == "date":
        return str(np.datetime64("1970-01-01") + np.timedelta64(round(value), "D"))
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _categories(quality: Quality, name: str) -> str:
    """The commonest words, a bar for the real share and one for the synthetic share."""
    real, drawn = (tables.words(f[name]).astype(str) for f in (quality.real, quality.synthetic))
    known, counts = np.unique(real, return_counts=True)
    top = [str(w) for w in known[np.argsort(-counts, kind="stable")][:6]]
    rows: list[tuple[str, float, float]] = [
        (w or "(missing)", float((real == w).mean()), float((drawn == w).mean())) for w in top
    ]
    if len(known) > 6 or 1 - sum(b for _, _, b in rows) > 1e-9:
        more = len(known) - len(top)
        other = [max(0.0, 1 - sum(shares)) for shares in ([a for _, a, _ in rows], [b for _, _, b in rows])]
        rows.append((f"{more:,} other{'s' * (more > 1)}" if more else "unknown words", other[0], other[1]))
    most = max(max(a, b) for _, a, b in rows) or 1.0
    parts = []
    for i, (word, a, b) in enumerate(rows):
        y = 17 * i
        shown = word if len(word) <= 14 else word[:13] + "…"
        parts.append(
            f'<g><title>{escape(word)}: {a:.2%} real, {b:.2%} synthetic</title><text x="98" y="{y + 11}" '
            f'text-anchor="end">{escape(shown)}</text>'
            f'<rect class=real x="104" y="{y + 1}" width="{152 * a / most:.1f}" height="6.5"/>'
            f'<rect class=drawn x="104" y="{y + 8}" width="{152 * b / most:.1f}" height="6.5"/></g>'
        )
    label = f"shares of {escape(name)}"
    return f'<svg viewBox="0 0 260 {17 * len(rows)}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


# -- pairs


def _pairs(quality: Quality) -> str:
    found = quality.pairs
    if len(found.names) < 2:
        return "<p>There is only one column.</p>"
    worst = "".join(
        f"<tr><td>{escape(a)} × {escape(b)}</td><td class=n>{d:.3f}</td><td class=n>{v:.2f}</td>"
        f"<td class=n>{w:.2f}</td></tr>"
        for a, b, d, v, w in found.worst(8)
    )
    mean = float(found.distance[np.tril_indices(len(found.names), -1)].mean())
    return (
        f"<p>Distance between the real and the synthetic joint distribution of every two columns: {mean:.3f} on "
        f"average, where two samples of real rows are {quality.pair_floor:.3f} apart. Dark cells are where a "
        "dependence was lost, or invented.</p>"
        f"{_heat(found.names, found.distance)}"
        "<div class=scroll><table class=wide><tr><th>worst pairs</th><th class=n>distance</th>"
        f"<th class=n>strength, real</th><th class=n>synthetic</th></tr>{worst}</table></div>"
        "<p class=note>Total variation; numbers in tenths of the real rows, rare words together. Strength is Cramér’s "
        "V: 0 is independence, 1 is that one column tells the other.</p>"
    )


def _heat(names: Sequence[str], distance: np.ndarray) -> str:
    names, distance = names[:_MOST_COLUMNS], distance[:_MOST_COLUMNS, :_MOST_COLUMNS]
    n = len(names)
    most = max(float(distance.max()), 0.05)
    cell = 30 if n <= 20 else 14
    labels = [name if len(name) <= 20 else name[:19] + "…" for name in names]
    # Letters of 10 px are about 6 px wide on average, capitals more; names stand at 55 degrees above the columns.
    longest = 6.6 * max(map(len, labels))
    left, top = round(longest) + 12, round(0.82 * longest) + 20
    font = 'style="font-size:10px"'
    parts = []
    for i, label in enumerate(labels):
        y = top + i * cell
        parts.append(
            f'<text {font} x="{left - 6}" y="{y + cell / 2 + 3.5:.1f}" text-anchor="end">{escape(label)}</text>'
        )
        x = left + i * cell + cell / 2
        parts.append(f'<text {font} transform="translate({x + 3:.1f} {top - 6}) rotate(-55)">{escape(label)}</text>')
        for j in range(n):
            fill, ink = colour(float(distance[i, j]) / most)
            x = left + j * cell
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{fill}">'
                f"<title>{escape(names[i])} × {escape(names[j])}: {distance[i, j]:.3f}</title></rect>"
            )
            if cell >= 30:
                parts.append(
                    f'<text x="{x + cell / 2 - 0.5}" y="{y + cell / 2 + 3}" text-anchor="middle" '
                    f'style="fill:{ink};font-size:9px">{100 * distance[i, j]:.0f}</text>'
                )
    size = f"0 0 {left + n * cell + round(0.58 * longest)} {top + n * cell}"
    return (
        f'<figure class=scroll><svg viewBox="{size}" role="img" aria-label="distance of every pair of columns" '
        f'style="min-width:{min(34, 4 + 2 * n)}rem;max-width:46rem">{"".join(parts)}</svg>'
        "<figcaption>Hundredths of the distance; on the diagonal, the columns themselves.</figcaption></figure>"
    )


# -- classifiers, privacy, bits


def _bars(rows: Sequence[tuple[str, float, str]], most: float, low: float = 0.0) -> str:
    body = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{value:.3f}</td><td class=bar>"
        f'<i class="{kind}" style="width:{100 * min(1.0, max(0.0, (value - low) / (most - low))):.1f}%"></i></td></tr>'
        for name, value, kind in rows
    )
    return f"<table class=bars>{body}</table>"


def _auc(quality: Quality) -> str:
    if quality.auc is None or quality.auc_real is None:
        return _absent(quality, "two-sample")
    return (
        "<p>Gradient boosting learns to tell synthetic rows from real ones; the area under its ROC curve, out of five "
        "folds, is 0.5 where it can only guess and 1 where it is never wrong. It finds what no single column or pair "
        "shows.</p>"
        + _bars([("synthetic against real", quality.auc, ""), ("real against real", quality.auc_real, "soft")], 1, 0.5)
        + "<p class=note>Bars start at 0.5.</p>"
    )


def _worth(quality: Quality) -> str:
    if quality.worth is None or quality.worth_real is None:
        return _absent(quality, "worth")
    rows = [
        ("trained on synthetic rows", quality.worth, ""),
        ("trained on as many real rows", quality.worth_real, "soft"),
    ]
    floor = 0.5 if "ROC" in quality.worth_name else 0.0
    return (
        f"<p>Gradient boosting predicts <b>{escape(quality.target)}</b> from the other columns and is judged on real "
        f"rows that it did not see, by the {escape(quality.worth_name)}.</p>"
        + _bars(rows, 1, floor)
        + (f"<p class=note>Bars start at {floor:g}.</p>" if floor else "")
    )


def _privacy(quality: Quality) -> str:
    found = quality.privacy
    if found is None:
        return _absent(quality, "privacy")
    facts = [
        (
            "copies of a training row",
            f"{found.copies:.2%} of synthetic rows, {found.real_copies:.2%} of fresh real rows",
        ),
        (
            "nearer to a training row than to a fresh one",
            f"{found.closer:.1%} of synthetic rows; 50 % where nothing is memorised",
        ),
        (
            "median distance to the closest training row",
            f"{np.median(found.distance):.4f} synthetic, {np.median(found.real_distance):.4f} fresh real rows",
        ),
    ]
    return (
        "<p>A model that memorises draws rows closer to those it was trained on than new rows of the same people would "
        "be. Its rows should lie as far away as fresh real ones do.</p>"
        + pairs(facts)
        + _distances(found.distance, found.real_distance)
        + "<p class=note>These are measurements of this sample, not a guarantee of privacy.</p>"
    )


def _distances(drawn: np.ndarray, real: np.ndarray) -> str:
    """Two curves: which share of the rows has a training row within so far."""
    width, height, left, base = 520, 190, 40, 160
    high = float(np.quantile(np.concatenate([drawn, real]), 0.99)) or 1.0
    parts = []
    for share in (0, 0.5, 1):
        y = base - 140 * share
        parts.append(f'<line class=axis x1="{left}" x2="{width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for tick in ticks(0, high, 5):
        x = left + (width - left) * tick / high
        anchor = "end" if tick / high > 0.97 else "middle"
        parts.append(f'<text x="{x:.0f}" y="{base + 17}" text-anchor="{anchor}">{tick:.3g}</text>')
    for values, stroke in ((real, "var(--accent)"), (drawn, "var(--second)")):
        grid = np.linspace(0, high, 120)
        within = np.searchsorted(np.sort(values), grid, "right") / len(values)
        points = "L".join(f"{left + (width - left) * g / high:.1f} {base - 140 * s:.1f}" for g, s in zip(grid, within))
        parts.append(f'<path d="M{points}" stroke="{stroke}"/>')
    return (
        f'<figure class=plot><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="distance to the closest record">{"".join(parts)}</svg>'
        f"{_LEGEND}<figcaption>Share of the rows that have a training row within this distance "
        "(the mean over the columns; 0 is a copy).</figcaption></figure>"
    )


def _bits(quality: Quality) -> str:
    if quality.bits is None:
        return _absent(quality, "bits")
    kinds = {
        "exact": "exactly",
        "lower_bound": "at most (log p is a lower bound)",
        "estimate": "as an estimate",
    }
    means = sorted(((n, float(b.mean())) for n, b in quality.bits.items()), key=lambda row: -row[1])
    return (
        f"<p>An unseen row takes {quality.row_bits:.2f} bits on average, {kinds[quality.score_kind]}: the negative "
        "base-2 logarithm of its probability, and what it costs in a compressed file, apart from cells that are "
        "spelled out because training never had them. Each column is counted given those before it in the order of "
        "scoring.</p>"
        + _bars([(name, bits, "") for name, bits in means[:_MOST_COLUMNS]], max(bits for _, bits in means) or 1.0)
    )


def _others(quality: Quality) -> str:
    if quality.others is None:
        return f"<h2>sdmetrics</h2>{_absent(quality, 'sdmetrics')}" if "sdmetrics" in quality.notes else ""
    rows = [(name, f"{value:.4f}") for name, value in quality.others.items()]
    return "<h2>sdmetrics</h2><p>The same comparison as its quality report has it; 1 is best.</p>" + pairs(rows)
