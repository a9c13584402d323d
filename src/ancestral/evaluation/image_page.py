"""The quality report of a model of images as one self-contained HTML page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape

import numpy as np

from ancestral.data import Images
from ancestral.evaluation.images import Figure, ImageQuality
from ancestral.evaluation.page import document, figures, pairs
from ancestral.evaluation.pictures import inline, sheet

_STYLE = """
.wide { width:100%; } .wide th, .wide td { padding:.4rem 1rem .4rem 0; border-bottom:1px solid var(--line);
  vertical-align:top; } .wide td.n, .wide th.n { text-align:right; white-space:nowrap; }
.wide td.about { color:var(--soft); font-size:.8rem; padding-right:0; width:40%; }
.sheets { display:grid; grid-template-columns:repeat(auto-fit,minmax(17rem,1fr)); gap:1.5rem; }
.sheets figure { margin:0; } .sheets img { width:100%; height:auto; image-rendering:pixelated; display:block;
  border:1px solid var(--edge); }
"""


def page(quality: ImageQuality, title: str, card: Sequence[tuple[str, str]]) -> str:
    """The whole page as HTML.

    Args:
        quality: from :func:`ancestral.evaluation.images.measure`.
        title: heading.
        card: (name, value) of the model.
    """
    first = quality.figures["frechet"]
    lead = (
        f"{first.made:,} images that the model drew, held against {first.real:,} real ones ({first.reference}) by the "
        "features of a network."
    )
    drawn = quality.drawn
    parts = [
        f"<h1>{escape(title)}</h1><p class=lead>{escape(lead)}</p>",
        figures(_headlines(quality)),
        "<h2>Drawn and real</h2>",
        _sheets(quality),
        "<h2>Figures</h2>",
        f"<p>All of them are by the feature network <code>{escape(first.network)}</code>, and say nothing beside those "
        "of another network, another reference set or other counts.</p>",
        _table(list(quality.figures.values())),
        *(f"<p class=note>No {escape(what)}: {escape(why)}</p>" for what, why in quality.notes.items()),
        "<div class=two><section><h2>Model</h2>",
        pairs([*card, *_scores(quality), *_codes(quality)]),
        "</section><section><h2>Time</h2>",
        pairs(
            [
                ("forward passes per image", f"{drawn.passes:g}, in batches of {drawn.batch}"),
                ("drawing an image", f"{drawn.seconds:.3g} s"),
                *((what, f"{seconds:.1f} s") for what, seconds in quality.seconds),
            ],
            "pairs short",
        ),
        "</section></div>",
    ]
    return document(title, "".join(parts), _STYLE)


def _headlines(quality: ImageQuality) -> list[tuple[str, str]]:
    found = quality.figures
    first = found["frechet"]
    real = "" if first.floor is None else f"; real images in their place: {first.floor:.3g}"
    rows = [(f"{first.value:.3g}", f"Fréchet distance of features{real}")]
    if "accuracy" in found:
        rows.append((f"{found['accuracy'].value:.1%}", "of the images show the class asked for, says the network"))
    rows += [
        (f"{found['precision'].value:.2f}", "precision: drawn images that lie near real ones"),
        (f"{found['recall'].value:.2f}", "recall: real images that lie near drawn ones"),
    ]
    return rows


def _table(found: Sequence[Figure]) -> str:
    best = {"low": "↓", "high": "↑", "": ""}
    rows = []
    for figure in found:
        real = "" if figure.floor is None else f"{figure.floor:.4g}"
        counts = f"{figure.made:,} against {figure.real:,} of {figure.reference}" if figure.real else f"{figure.made:,}"
        rows.append(
            f"<tr><td>{escape(figure.name)} {best[figure.best]}</td><td class=n>{figure.value:.4g}</td>"
            f"<td class=n>{real}</td><td>{escape(counts)}</td><td class=about>{escape(figure.note)}</td></tr>"
        )
    head = "<tr><th></th><th class=n>drawn</th><th class=n>real</th><th>images</th><th></th></tr>"
    return (
        f"<div class=scroll><table class=wide>{head}{''.join(rows)}</table></div><p class=note>Real: the same "
        "figure for further real images in place of drawn ones. Arrows say which way is better.</p>"
    )


def _sheets(quality: ImageQuality) -> str:
    made = quality.drawn.images
    if made.labels is not None:
        # A row for each class, as far as there are enough of them.
        chosen = [np.flatnonzero(made.labels == c)[:8] for c in range(min(len(made.classes), 12))]
        made = made.take(np.concatenate(chosen))
    caption = "Drawn" + (f", guidance {quality.guidance:g}" if quality.guidance else "")
    if made.labels is not None:
        caption += "; by class: " + ", ".join(made.classes[:12])
    rows = [(made.take(slice(0, 96)), caption), (quality.real.take(slice(0, 64)), "Real, from the reference set")]
    return "<div class=sheets>" + "".join(_sheet(*row) for row in rows) + "</div>"


def _sheet(items: Images, caption: str) -> str:
    buffer = io.BytesIO()
    sheet(items, 8, max(items.pixels.shape[1:3])).save(buffer, format="PNG", optimize=True)
    picture = inline(buffer.getvalue())
    return f'<figure><img alt="{escape(caption)}" src="{picture}"><figcaption>{escape(caption)}</figcaption></figure>'


def _scores(quality: ImageQuality) -> list[tuple[str, str]]:
    if quality.bits is None:
        return []
    kind = {"exact": "", "lower_bound": "at most ", "estimate": "about "}[quality.score_kind]
    of = "image" if quality.bits_of == "items" else f"image's {quality.bits_of}"
    return [("bits", f"{kind}{quality.bits:.1f} per {of} of the reference set")]


def _codes(quality: ImageQuality) -> list[tuple[str, str]]:
    found = quality.tokenizer
    if found is None:
        return []
    rows = [("tokenizer", f"{found['psnr']:.1f} dB of signal to noise in reconstructions")]
    if "used" in found:
        rows.append(("codebook", f"{found['used']:.1%} of the codes in use, perplexity {found['perplexity']:.0f}"))
    return rows
