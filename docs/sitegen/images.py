"""Image systems compared: tables from what the benchmarks of images measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sitegen.measured import cell, markdown_table, said

TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
MISSING = "`{}` has recorded no result."


def budget(result: Mapping[str, Any], picture: str = "") -> str:
    """Every recipe of one data set, the least Fréchet distance first; figures of each guidance scale in turn."""
    ours, extra = result["ours"], result.get("extra", {})
    rows = []
    order = sorted(ours["rows"].values(), key=lambda row: min(d["frechet"] for d in row["draws"].values()))
    for row in order:
        draws = row["draws"].values()

        def each(name: str, draws: Any = draws) -> str:
            return " / ".join(f"{draw[name]:.3g}" for draw in draws)

        rows.append(
            [
                f"[`{row['recipe']}`](recipes/{row['recipe']}.md)", " / ".join(row["draws"]), each("frechet"),
                each("class_accuracy"), each("forward_passes_per_image"), each("processor_seconds_per_image"),
                each("precision"), each("recall"), f"{row['rfid']:.3g}" if "rfid" in row else "0", row["tokens"],
                cell(row["sites"]), cell(row["parameters"]), cell(row["steps"]),
            ]
        )  # fmt: skip
    head = (
        "recipe", "guidance", "Fréchet distance", "class accuracy", "passes", "seconds per image", "precision",
        "recall", "rFID", "tokens", "sites", "parameters", "steps",
    )  # fmt: skip
    real = ours["floor_of_real_images"]
    parts = [
        said(result),
        picture,
        markdown_table(head, rows),
        f"Real training images in place of drawn ones: Fréchet distance {real['frechet']:.3g}, precision "
        f"{real['precision']:.3g}, recall {real['recall']:.3g}. The judge of class accuracy is right on "
        f"{real['judge_accuracy_on_test']:.1%} of the test images. Features: {extra.get('feature_network', '')}; "
        f"reference: {extra.get('reference', '')}.",
        *(
            f"`{row['recipe']}` drew {row['samples']:,} images only; as many real ones have a Fréchet distance of "
            f"{row['floor_of_as_many_real_images']['frechet']:.3g}."
            for row in order
            if "floor_of_as_many_real_images" in row
        ),
        _tokenizers(order),
        *(f"`{name}` has no row: {why}." for name, why in extra.get("failed", {}).items()),
    ]
    return "\n\n".join(part for part in parts if part)


def _tokenizers(rows: Sequence[Mapping[str, Any]]) -> str:
    """A warning where most of the distances are the tokenizers' doing."""
    coded = [row for row in rows if row.get("rfid")]
    if not coded:
        return ""
    lost = [row["rfid"] for row in coded]
    if median(lost) < 0.5 * median(min(d["frechet"] for d in row["draws"].values()) for row in coded):
        return ""
    return (
        "Most of the Fréchet distances is the tokenizers' doing: real images that went through them are "
        f"{min(lost):.3g} to {max(lost):.3g} away (rFID), for so short a training leaves them blurred. Distances order "
        "systems on codes little, and say nothing beside those of systems on pixels, whose images are sharp, and may "
        "still be noise; class accuracy, by another network, tells more."
    )


def usage(result: Mapping[str, Any]) -> str:
    """Share of the codebook in use, with and without what keeps codes alive."""
    rows = [
        [TITLES.get(data, data), f"{runs['ours']['used_on_test']:.1%}", f"{runs['ours']['perplexity_on_test']:.0f}",
         f"{runs['plain']['used_on_test']:.1%}", f"{runs['ours']['psnr_on_test']:.1f} dB"]
        for data, runs in result["ours"]["runs"].items()
    ]  # fmt: skip
    head = ("data", "codes in use", "perplexity", "random start, no restarts", "reconstruction")
    return f"{said(result)}\n\n{markdown_table(head, rows)}"


def speed(result: Mapping[str, Any]) -> str:
    """The papers' factors beside those measured here."""
    rows = [
        [claim["system"], claim["against"], claim["of"], f"{claim['published']:g}", f"{claim['ours']:.3g}",
         f"{claim['fewer_passes']:.3g}", f"{claim['faster_one_image']:.3g}", f"{claim['faster_in_batches']:.3g}"]
        for claim in result["extra"]["claims"]
    ]  # fmt: skip
    head = ("system", "against", "factor of", "paper", "here", "fewer passes", "faster, one image", "faster, batches")
    why = (
        "On one core arithmetic takes the time, not the reading of weights that a pass costs on the papers' hardware, "
        "so that fewer passes over more places save less; and the raster model is drawn by compiled kernels."
    )
    return f"{said(result)}\n\n{markdown_table(head, rows)}\n\n{why}"


def sizes(result: Mapping[str, Any]) -> str:
    """Seconds and memory at the published sizes."""
    rows = [
        [name, f"{row['parameters'] / 1e6:.0f} M", cell(row["passes"]), f"{row['unguided_seconds']:.1f}",
         f"{row['guided_seconds']:.1f}", f"{row['peak_memory_gib']:.1f} GiB"]
        for name, row in result["ours"].items()
    ]  # fmt: skip
    head = ("system", "parameters", "passes", "seconds", "seconds, guided", "peak memory")
    return f"{said(result)}\n\n{markdown_table(head, rows)}"


def images(found: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, str] | None = None) -> str:
    """All measurements of images that are recorded.

    Args:
        found: results by name.
        pictures: of samples, by data set: the file's name beside the page.
    """
    parts = []
    for data, title in TITLES.items():
        parts.append(f"### Equal budgets: {title}")
        result = found.get(f"equal_budget_{data}")
        if result is None:
            parts.append(MISSING.format("benchmarks/images/equal_budget.py"))
            continue
        file = (pictures or {}).get(data)
        best = ", ".join(result["extra"].get("pictured", ()))
        parts.append(
            budget(result, f"![Samples of {best}, a row per class]({file})\n\nSamples of {best}." if file else "")
        )
    for heading, name, show, script in (
        ("Codebook usage", "codebook_usage", usage, "codebook_usage.py"),
        ("Speed that papers claim", "images_speed", speed, "speed.py"),
        ("Published sizes", "images_published_sizes", sizes, "published_sizes.py"),
    ):
        result = found.get(name)
        parts += [f"### {heading}", show(result) if result else MISSING.format(f"benchmarks/images/{script}")]
    return "\n\n".join(parts)
