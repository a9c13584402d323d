"""One self-contained HTML page about a fitted image model: no external resource, light and dark, any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from ancestral.evaluation.page import colour, document, figures, pairs, ticks
from ancestral.evaluation.pictures import inline, png


@dataclass
class Report:
    """What the page shows. Images are uint8 ``[..., H, W]`` with values below ``levels``; rates are in bits.

    Attributes:
        title, lead: heading and first paragraph.
        figures: large numbers at the top: (number, caption).
        levels: grey levels.
        samples: ``[classes, n, H, W]``.
        classes: name of every class.
        guidance: classifier-free guidance scale of the samples.
        truth: ``[m, H, W]`` test items.
        known: bool ``[m, H, W]``, what was shown of them.
        completions: ``[m, draws, H, W]``.
        curve: rows with ``step``, ``seconds``, ``loss`` and ``val_loss`` (bits per dimension or None).
        curve_note: what lies under it.
        reference: (name, bits) drawn as a line across the curve.
        rates: (name, bits per dimension, note); the first is the model's.
        heat: mean bits at every site, ``[H, W]``.
        timings: (what, seconds).
        card: (name, value).
        commands: (what for, shell or Python lines) to go on with.
    """

    title: str
    lead: str
    figures: list[tuple[str, str]]
    levels: int
    samples: np.ndarray
    classes: Sequence[str]
    guidance: float
    truth: np.ndarray
    known: np.ndarray
    completions: np.ndarray
    curve: list[dict[str, Any]]
    curve_note: str
    reference: tuple[str, float]
    rates: list[tuple[str, float, str]]
    heat: np.ndarray
    timings: list[tuple[str, float]]
    card: list[tuple[str, str]]
    commands: list[tuple[str, str]] = field(default_factory=list)


def page(report: Report) -> str:
    """The whole page as HTML."""
    commands = "".join(f"<p>{escape(what)}</p><pre>{escape(lines)}</pre>" for what, lines in report.commands)
    parts = [
        f"<h1>{escape(report.title)}</h1><p class=lead>{escape(report.lead)}</p>",
        figures(report.figures),
        "<h2>How many bits it takes</h2><p>The fewer bits per pixel, the better the model predicts images it has "
        "never seen. The model’s number is the negative base-2 logarithm of the probability it gives to the test "
        "set, and the size of the compressed file bears it out.</p>",
        _rates(report.rates),
        "<h2>New digits</h2><p>Drawn pixel by pixel, each from its distribution given the pixels so far and the "
        "class.</p>",
        _samples(report),
        "<h2>Half a digit, completed</h2><p>The model was shown the unhatched half of test digits and drew the "
        "rest. Draws differ where the visible half leaves room for doubt; the known half never changes.</p>",
        _completions(report),
        "<div class=two><section><h2>Learning curve</h2>",
        _curve(report),
        "</section><section><h2>Where the bits go</h2>",
        _heat(report.heat),
        "</section></div>",
        "<div class=two><section><h2>Model card</h2>",
        pairs(report.card),
        "</section><section><h2>Time</h2>",
        pairs([(what, f"{seconds:.1f} s") for what, seconds in report.timings], "pairs short"),
        "</section></div>",
        f"<h2>What to do next with your own data</h2>{commands}",
    ]
    return document(report.title, "".join(parts))


def _strip(images: np.ndarray, levels: int) -> bytes:
    """Images ``[n, H, W]`` side by side on one PNG, a blank column between them."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return png(np.concatenate(list(padded), axis=1), levels, invert=True)


def _samples(report: Report) -> str:
    rows = "".join(
        f'<div><b class=sans>{escape(name)}</b><img class=d alt="{len(images)} drawn images of class '
        f'{escape(name)}" src="{inline(_strip(images, report.levels))}"></div>'
        for name, images in zip(report.classes, report.samples)
    )
    scale = f", strengthened by classifier-free guidance of scale {report.guidance:g}" if report.guidance else ""
    return f"<figure><div class=samples>{rows}</div><figcaption>Samples per class{scale}.</figcaption></figure>"


def _masked(image: np.ndarray, known: np.ndarray, levels: int) -> bytes:
    """A PNG whose unknown pixels are transparent."""
    import io

    from PIL import Image

    grey = 255 - np.round(image * (255 / (levels - 1))).astype(np.uint8)
    both = np.stack([np.where(known, grey, 255), np.where(known, 255, 0)], -1).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(both).save(buffer, format="PNG")
    return buffer.getvalue()


def _completions(report: Report) -> str:
    rows = []
    for truth, known, draws in zip(report.truth, report.known, report.completions):
        shown = inline(_masked(truth, known, report.levels))
        drawn = "".join(
            f'<img class=d alt="completion" src="{inline(png(d, report.levels, invert=True))}">' for d in draws
        )
        rows.append(
            f'<tr><td><img class="d hidden" alt="what the model saw" src="{shown}"></td>'
            f'<td><img class=d alt="the original" src="{inline(png(truth, report.levels, invert=True))}"></td>'
            f"<td class=draws>{drawn}</td></tr>"
        )
    head = "<tr><th>shown</th><th>original</th><th>draws</th></tr>"
    return f"<div class=scroll><table class=fill>{head}{''.join(rows)}</table></div>"


def _rates(rates: list[tuple[str, float, str]]) -> str:
    # One bar far longer than the rest would flatten them all: it fades out instead.
    usual = sorted(bits for _, bits, _ in rates)[-2] if len(rates) > 1 else rates[0][1]
    most = min(max(bits for _, bits, _ in rates), 1.2 * usual)
    rows = []
    for i, (name, bits, note) in enumerate(rates):
        over = " class=over" if bits > most else ""
        aside = f"<span class=note>{escape(note)}</span>" if note else ""
        rows.append(
            f"<tr{' class=ours' if i == 0 else ''}><td>{escape(name)}{aside}</td><td class=n>{bits:.3f}</td>"
            f'<td class=bar><i{over} style="width:{100 * min(1, bits / most):.1f}%"></i></td></tr>'
        )
    return f"<table class=rates><tr><th>test set</th><th>bits per pixel</th><th></th></tr>{''.join(rows)}</table>"


def _curve(report: Report) -> str:
    """Training and validation rates over the steps as an SVG."""
    series = {
        name: [(r["step"], r[key]) for r in report.curve if r.get(key) is not None]
        for name, key in (("training", "loss"), ("validation", "val_loss"))
    }
    points = [p for line in series.values() for p in line]
    if not points:
        return "<p class=note>The run was too short for a curve.</p>"
    width, height, left, right, top, bottom = 420, 300, 40, 12, 26, 36
    last = max(x for x, _ in points)
    low = min(y for _, y in points)
    high = max(*(y for _, y in points), report.reference[1] if report.reference[1] > low else low)
    pad = 0.06 * (high - low) or 0.1
    low, high = low - pad, high + pad

    def at(step: float, bits: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * step / last,
            top + (height - top - bottom) * (high - bits) / (high - low),
        )

    parts = []
    for tick in ticks(low, high):
        _, y = at(0, tick)
        parts.append(f'<line class=axis x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    for tick in ticks(0, last, 4):
        x, _ = at(tick, low)
        parts.append(f'<text x="{x:.1f}" y="{height - bottom + 16}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{width - right}" y="{height - 4}" text-anchor="end">step</text>')
    name, bits = report.reference
    if low < bits < high:
        _, y = at(0, bits)
        parts.append(
            f'<line x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--soft)" '
            f'stroke-dasharray="4 4"/><text x="{width - right}" y="{y - 5:.1f}" text-anchor="end">'
            f"{escape(name)}</text>"
        )
    legend = left
    for (title, line), stroke in zip(series.items(), ("var(--accent)", "var(--second)")):
        if not line:
            continue
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*p) for p in line))
        parts.append(f'<path d="{path}" stroke="{stroke}"/>')
        for step, value in line if title == "validation" else ():
            x, y = at(step, value)
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{stroke}"><title>step {step}: '
                f"{value:.4f}</title></circle>"
            )
        parts.append(f'<rect x="{legend}" y="7" width="12" height="4" fill="{stroke}"/>')
        parts.append(f'<text x="{legend + 17}" y="14">{title}</text>')
        legend += 95
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="learning curve">{"".join(parts)}</svg>'
        f"<figcaption>{escape(report.curve_note)}</figcaption></figure>"
    )


def _heat(bits: np.ndarray) -> str:
    """Bits per site as a heat map with its scale, an SVG."""
    rows, columns = bits.shape
    most = float(bits.max()) or 1.0
    cell, top = 36, 0
    write = max(rows, columns) <= 16
    parts = []
    for i in range(rows):
        for j in range(columns):
            fill, text = colour(float(bits[i, j]) / most)
            x, y = j * cell, top + i * cell
            parts.append(
                f'<rect x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{fill}">'
                f"<title>row {i + 1}, column {j + 1}: {bits[i, j]:.3f} bits</title></rect>"
            )
            if write:
                parts.append(
                    f'<text x="{x + cell / 2 - 0.5}" y="{y + cell / 2 + 3.5}" text-anchor="middle" '
                    f'style="fill:{text};font-size:9.5px">{bits[i, j]:.1f}</text>'
                )
    width, base = columns * cell - 1, rows * cell + 14
    steps = 48
    for k in range(steps):
        fill, _ = colour(k / (steps - 1))
        parts.append(
            f'<rect x="{k * width / steps:.2f}" y="{base}" width="{width / steps + 0.4:.2f}" height="10" '
            f'fill="{fill}"/>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        parts.append(
            f'<text x="{share * width:.1f}" y="{base + 25}" text-anchor="{anchor}" style="font-size:9px">'
            f"{share * most:.1f}</text>"
        )
    size = f"0 0 {width} {base + 30}"
    return (
        f'<figure><svg viewBox="{size}" role="img" aria-label="mean bits of every pixel">{"".join(parts)}</svg>'
        "<figcaption>Mean bits of every pixel of the test set, given those before it in the order of scoring: ink "
        "that could go either way is dear, borders and what earlier pixels tell are cheap.</figcaption></figure>"
    )
