"""The first job: everything the library does, once, on scikit-learn's 8 x 8 digits, in about two minutes."""

from __future__ import annotations

import io
import lzma
import math
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ancestral.errors import DataError
from ancestral.files import atomic_path, write_json

if TYPE_CHECKING:
    from rich.console import Console

    from ancestral.data import Images
    from ancestral.model import Model

RECIPE = "pixelcnn-any"
SETTINGS: dict[str, Any] = {"augment": 0.7, "ink": True}
"""Recipe of the quickstart and its arguments (and those of training)."""

TRAIN_ITEMS = 1437
VALIDATION = 0.05
PER_CLASS = 10
GUIDANCE = 1.0
COMPLETED = 8
LIMIT = 112.0
"""Seconds that the whole job may take when nothing is said about training."""
MOST_MINUTES = 1.2
AFTER = 6.5
"""What follows training takes about as long as scoring the test set so many times."""
DRAWS = 8


def digits() -> tuple[Images, Images]:
    """Training and test images: 17 grey levels, numpy's permutation of seed 0, the first 1437 to train on.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the quickstart uses scikit-learn's digits; install them with pip install 'ancestral[examples]'"
        ) from error
    from ancestral.data import Images

    bunch: Any = load_digits()
    pixels, labels = bunch.images.astype(np.uint8), bunch.target
    mixed = np.random.default_rng(0).permutation(len(pixels))
    classes = [str(i) for i in range(10)]
    first, second = (
        Images.read(pixels[part], labels[part], classes, levels=17)
        for part in (mixed[:TRAIN_ITEMS], mixed[TRAIN_ITEMS:])
    )
    return first, second


def independent(train: np.ndarray, test: np.ndarray, levels: int) -> float:
    """Bits per pixel of a model of independent pixels: counts per pixel, one added to each.

    Args:
        train, test: uint8 ``[n, H, W]`` below ``levels``.
    """
    counts = np.ones((*train.shape[1:], levels))
    rows, columns = np.indices(train.shape[1:])
    for image in train:
        counts[rows, columns, image] += 1
    rates = -np.log2(counts / counts.sum(-1, keepdims=True))
    return float(np.mean([rates[rows, columns, image].mean() for image in test]))


def pack_bits(values: np.ndarray, width: int) -> bytes:
    """Whole numbers below ``2 ** width`` one after the other, ``width`` bits each."""
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits((values.reshape(-1, 1) >> shifts) & 1).tobytes()


def general_coders(train: np.ndarray, test: np.ndarray, levels: int) -> list[tuple[str, float, str]]:
    """Bits per pixel of general-purpose coders on the test set, the better of two packings each.

    Args:
        train, test: uint8 ``[n, H, W]`` below ``levels``.

    Returns:
        (name, bits per pixel, note) each.
    """
    from PIL import Image

    width = max(1, math.ceil(math.log2(levels)))
    layouts: list[tuple[str, Callable[[np.ndarray], bytes]]] = [
        ("a byte per pixel", lambda x: x.tobytes()),
        (f"{width} bits per pixel", lambda x: pack_bits(x, width)),
    ]

    def squeeze(data: bytes) -> int:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
        return len(lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=filters))

    def picture(pixels: np.ndarray) -> int:
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", optimize=True)
        return buffer.tell()

    def best(size: Callable[[Callable[[np.ndarray], bytes]], int]) -> tuple[float, str]:
        bits, packing = min((8 * size(pack) / test.size, name) for name, pack in layouts)
        return bits, packing

    n, height, side = test.shape
    columns = math.ceil(math.sqrt(n))
    blank = np.zeros((math.ceil(n / columns) * columns - n, height, side), np.uint8)
    grid = np.concatenate([test, blank]).reshape(-1, columns, height, side)
    sheet = grid.transpose(0, 2, 1, 3).reshape(-1, columns * side)
    found: list[tuple[str, float, str]] = []
    bits, packing = best(lambda pack: squeeze(pack(np.concatenate([train, test]))) - squeeze(pack(train)))
    found.append(("xz -9e, after the training set", bits, f"{packing}; what the test set adds to the file"))
    bits, packing = best(lambda pack: squeeze(pack(test)))
    found.append(("xz -9e", bits, packing))
    bits, packing = best(lambda pack: len(zlib.compress(pack(test), 9)))
    found.append(("zlib -9", bits, packing))
    sizes = {"all images on one sheet": picture(sheet), "all images in one column": picture(test.reshape(-1, side))}
    name = min(sizes, key=lambda k: sizes[k])
    found.append(("PNG, one file", 8 * sizes[name] / test.size, name))
    each = sum(picture(image) for image in test)
    found.append(("PNG, a file per image", 8 * each / test.size, "mostly headers at this size"))
    return found


class _Clock:
    """Seconds of every stage, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float]] = []
        self.began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.rows.append((name, time.perf_counter() - began))

    def total(self) -> float:
        return time.perf_counter() - self.began


def affordable(spent: float, per_item: float, items: int) -> float:
    """Minutes of training that keep the whole job within its limit, as fast as this machine is.

    Args:
        spent: seconds since the start.
        per_item: seconds that scoring one item takes.
        items: in the test set.
    """
    return min(MOST_MINUTES, max(0.1, (LIMIT - spent - AFTER * per_item * items) / 60))


def _speed(train: Images, test: Images, seed: int) -> float:
    """Seconds that scoring one test item takes, by a model of one training step."""
    from ancestral import api

    model = api.fit(
        train.take(slice(0, 64)), recipe=RECIPE, validation=0, seed=seed, **{**SETTINGS, "steps": 1, "quiet": True}
    )
    few = test.take(slice(0, 32))
    model.log_prob(few)  # the first call of anything is slower
    began = time.perf_counter()
    model.log_prob(few)
    return (time.perf_counter() - began) / len(few)


def run(minutes: float | None, out: Path, seed: int = 0, as_json: bool = False) -> dict[str, Any]:
    """Fit, sample, score, complete, compress, save, report.

    Args:
        minutes: training budget; None takes what keeps the whole job below two minutes.
        out: folder for ``digits.ancestral``, ``test.npz``, ``test.anc``, ``results.json`` and ``report.html``.
        seed: of the fit and of all draws.
        as_json: print the results as JSON and nothing else.

    Returns:
        The results, as written to ``results.json``.

    Raises:
        DataError: the folder cannot be written, or scikit-learn is missing.
    """
    from rich.console import Console

    from ancestral.commands import console as shell

    if minutes is not None and not minutes > 0:
        raise DataError(f"--minutes {minutes} must be more than zero")
    shell.reserve(out / "report.html", folder=False)
    shell.reserve(out / "digits.ancestral", folder=True, overwrite=False, ours="model.json")
    say = Console(highlight=False, quiet=as_json)
    clock = _Clock()
    say.print("[bold]ancestral quickstart[/bold]  1797 handwritten digits, 8 x 8 pixels, 17 grey levels\n")
    with clock.stage("loading the library and the data"):
        from ancestral import api

        train, test = digits()
        unlabelled = test.take(slice(None))
        unlabelled.relabel(None)
        ours, theirs = train.pixels[..., 0], test.pixels[..., 0]
    if minutes is None:
        with clock.stage("measuring this machine's speed"):
            per_item = _speed(train, test, seed)
        minutes = round(affordable(clock.total(), per_item, len(test)), 2)
    say.print(f"[bold]fit[/bold]       {RECIPE} on {len(train)} images, {minutes:g} minutes (Ctrl-C ends it early)")
    with clock.stage("training"):
        model = api.fit(
            train, recipe=RECIPE, minutes=minutes, seed=seed, validation=VALIDATION, quiet=as_json, **SETTINGS
        )
    assert model.history is not None
    with clock.stage("scoring the test set"):
        scores = model.log_prob(unlabelled, per_site=True)
        told = model.log_prob(test, label=True).bits_per_dim()
    bits = scores.bits_per_dim()
    with clock.stage("baselines"):
        alone = independent(ours, theirs, train.levels)
        coders = general_coders(ours, theirs, train.levels)
    rates = [
        (f"{RECIPE} (this model)", bits, f"{scores.kind}; {told:.3f} when told the class"),
        ("independent pixels", alone, "counts per pixel, one added"),
        ("uniform", math.log2(train.levels), f"log2 of {train.levels} levels"),
        *coders,
    ]
    _print_rates(say, rates)

    with clock.stage("compressing and decompressing the test set"):
        blob = model.compress(unlabelled)
        if not np.array_equal(model.decompress(blob), theirs):
            raise RuntimeError("the decompressed test set differs from the original")
    packed = 8 * len(blob) / theirs.size
    say.print(
        f"[bold]compress[/bold]  {theirs.size:,} -> {len(blob):,} bytes, ratio {theirs.size / len(blob):.2f}, "
        f"{packed:.4f} bits per pixel ({100 * (packed / bits - 1):+.2f} %); decompressed, identical",
        soft_wrap=True,
    )

    with clock.stage("drawing samples"):
        order = [c for c in range(10) for _ in range(PER_CLASS)]
        samples = np.asarray(model.sample(len(order), label=order, guidance=GUIDANCE, seed=seed))
        samples = samples.reshape(10, PER_CLASS, *theirs.shape[1:])
    say.print("[bold]sample[/bold]    one of each class")
    _print_images(say, samples[:, 0], train.levels)

    with clock.stage("completing halves"):
        known = np.zeros((COMPLETED, *theirs.shape[1:]), bool)
        known[0::2, : theirs.shape[1] // 2] = True
        known[1::2, :, : theirs.shape[2] // 2] = True
        chosen = _one_per_class(test, COMPLETED)
        drawn = model.complete(chosen, known=known, draws=DRAWS, seed=seed)
        drawn = np.asarray(drawn).reshape(COMPLETED, DRAWS, *theirs.shape[1:])
        truth = chosen.pixels[..., 0]
        if not (drawn == truth[:, None])[np.broadcast_to(known[:, None], drawn.shape)].all():
            raise RuntimeError("a completion changed a known pixel")
    say.print("[bold]complete[/bold]  upper or left half known: the originals, then one draw each")
    _print_images(say, truth, train.levels)
    _print_images(say, drawn[:, 0], train.levels)

    with clock.stage("saving"):
        model.save(out / "digits.ancestral")
        unlabelled.save(out / "test.npz")
        with atomic_path(out / "test.anc") as path:
            path.write_bytes(blob)
    results = {
        "recipe": RECIPE,
        "settings": model.config,
        "parameters": model.parameters,
        "seed": seed,
        "steps": model.history.steps,
        "bits_per_dim": bits,
        "kind": scores.kind,
        "bits_per_dim_given_class": told,
        "baselines": {name: rate for name, rate, _ in rates[1:]},
        "below_independent_pixels": 1 - bits / alone,
        "compressed_bytes": len(blob),
        "raw_bytes": int(theirs.size),
        "compressed_bits_per_dim": packed,
        "seconds": dict(clock.rows),
        "total_seconds": clock.total(),
        "versions": _versions(),
        "machine": {"processor": processor(), "cores": os.cpu_count()},
    }
    write_json(out / "results.json", results)
    heat = (-np.asarray(scores.per_site).mean(0) / math.log(2)).reshape(theirs.shape[1:])
    pictures = {"samples": samples, "truth": truth, "known": known, "completions": drawn, "heat": heat}
    with atomic_path(out / "report.html") as path:
        path.write_text(_report(model, results, rates, clock, pictures, out), encoding="utf-8")
    if as_json:
        shell.emit(results)
    say.print(f"\n[bold]report[/bold]    {out / 'report.html'}   (open it in a browser)", soft_wrap=True)
    say.print(f"[bold]model[/bold]     {out / 'digits.ancestral'}   {model.parameters:,} parameters", soft_wrap=True)
    say.print(f"[bold]time[/bold]      {clock.total():.0f} s in all\n")
    say.print(f"next      ancestral sample {out / 'digits.ancestral'} -n 64 --label 3 --out threes.png", soft_wrap=True)
    say.print("          ancestral fit YOUR_DATA        (images, tables, text, sequences)", soft_wrap=True)
    return results


def _one_per_class(test: Images, n: int) -> Images:
    assert test.labels is not None
    first = [int(np.flatnonzero(test.labels == c)[0]) for c in range(10)]
    return test.take(first[:n])


def _print_rates(say: Console, rates: list[tuple[str, float, str]]) -> None:
    most = 1.2 * math.log2(17)  # PNG files of one image each are off any scale
    wide = max(len(name) for name, _, _ in rates)
    say.print("[bold]score[/bold]     bits per pixel of the test set")
    for i, (name, rate, _) in enumerate(rates):
        style = "bold cyan" if i == 0 else "dim"
        bar = "\u2588" * max(1, min(24, round(24 * rate / most)))
        say.print(f"            {name:<{wide}}  {rate:6.3f}  [{style}]{bar}[/{style}]")


def _print_images(say: Console, images: np.ndarray, levels: int) -> None:
    """Images ``[n, H, W]`` side by side in grey half blocks; nothing away from a colour terminal."""
    if not say.is_terminal or say.color_system not in ("256", "truecolor"):
        return
    from rich.text import Text

    grey = np.round(images * (255 / (levels - 1))).astype(int)
    fit = max(1, (say.width - 12) // (grey.shape[2] + 1))
    for top in range(0, grey.shape[1] - 1, 2):
        line = Text(" " * 12)
        for image in grey[:fit]:
            for high, low in zip(image[top], image[top + 1]):
                line.append("\u2580", f"rgb({high},{high},{high}) on rgb({low},{low},{low})")
            line.append(" ")
        say.print(line)
    say.print()


def _versions() -> dict[str, str]:
    import torch

    from ancestral.version import __version__

    return {
        "ancestral": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _report(
    model: Model,
    results: dict[str, Any],
    rates: list[tuple[str, float, str]],
    clock: _Clock,
    pictures: dict[str, np.ndarray],
    out: Path,
) -> str:
    from ancestral.commands.console import ending
    from ancestral.evaluation.report import Report, page

    assert model.recipe is not None and model.history is not None

    def in_bits(nats: float | None) -> float | None:
        return None if nats is None else nats / math.log(2)

    history = model.history
    curve = [{**r, "loss": in_bits(r["loss"]), "val_loss": in_bits(r["val_loss"])} for r in history.rows]
    machine, bits = results["machine"], results["bits_per_dim"]
    ratio = results["raw_bytes"] / results["compressed_bytes"]
    saved = out / "digits.ancestral"
    gain = results["below_independent_pixels"]
    note = (
        f"{results['kind']}; compressed file {results['compressed_bits_per_dim']:.3f}; "
        f"{results['bits_per_dim_given_class']:.3f} when told the class"
    )
    return page(
        Report(
            title="Handwritten digits, learned and compressed",
            lead=f"One model of the joint distribution of {TRAIN_ITEMS} training images of 8 x 8 pixels draws new "
            "digits, tells how probable an image is, completes what is hidden, and compresses 360 test images "
            "without loss.",
            figures=[
                (f"{bits:.3f}", f"bits per pixel of the test set ({results['kind']})"),
                (f"{100 * abs(gain):.0f} %", f"{'fewer' if gain >= 0 else 'more'} bits than independent pixels take"),
                (f"{ratio:.2f} : 1", "lossless compression, from a byte per pixel"),
                (f"{clock.total():.0f} s", f"in all, on {machine['cores']} cores"),
            ],
            levels=17,
            samples=pictures["samples"],
            classes=[str(i) for i in range(10)],
            guidance=GUIDANCE,
            truth=pictures["truth"],
            known=pictures["known"],
            completions=pictures["completions"],
            curve=curve,
            curve_note="Bits per pixel while training, with the class told most of the time"
            + (", over all that the model learns: any-order questions too" if model.generator.any_order else "")
            + "; validation with the averaged weights.",
            reference=("independent pixels", rates[1][1]),
            rates=[(*rates[0][:2], note), *sorted(rates[1:], key=lambda row: row[1])],
            heat=pictures["heat"],
            timings=[*clock.rows, ("in all", clock.total())],
            card=[
                ("recipe", f"{model.recipe.id}: {model.recipe.title}"),
                ("from", ", ".join(p for p in (model.recipe.authors, model.recipe.paper) if p)),
                ("arguments", ", ".join(f"{k}={v}" for k, v in model.config.items())),
                ("parameters", f"{model.parameters:,}"),
                ("training", ending(history)),
                ("best validation", _best(history)),
                ("compressed file", f"{results['compressed_bytes']:,} bytes, read back and found identical"),
                ("seed", str(results["seed"])),
                ("versions", ", ".join(f"{k} {v}" for k, v in results["versions"].items())),
                ("machine", f"{machine['processor']}, {machine['cores']} cores"),
            ],
            commands=_commands(saved, out),
        )
    )


def _best(history: Any) -> str:
    if history.best_loss is None:
        return "no validation"
    return f"{history.best_loss / math.log(2):.4f} bits per pixel at step {history.best_step}"


def _commands(saved: Path, out: Path) -> list[tuple[str, str]]:
    return [
        (
            "Go on with the model that this page shows:",
            f"ancestral sample {saved} -n 64 --label 3 --guidance 1 --out threes.png\n"
            f"ancestral complete {saved} {out / 'test.npz'} --known top --draws 4 --out completed.png\n"
            f"ancestral decompress {saved} {out / 'test.anc'} --out again.npz",
        ),
        (
            "Learn data of your own: a folder of images, a table, text files, sequences.",
            "ancestral fit photos/ --set size=32 --minutes 60\n"
            "ancestral fit adult.csv --minutes 5\n"
            "ancestral fit novel.txt --minutes 10\n"
            "ancestral recipes",
        ),
        (
            "The same in Python:",
            "import ancestral\n\n"
            'model = ancestral.fit("adult.csv", minutes=5)\n'
            'model.sample(1000, given={"sex": "Female"})\n'
            'model.log_prob("new.csv").bits_per_dim()\n'
            'model.complete("gaps.csv", draws=5)\n'
            'model.save("adult.ancestral")',
        ),
    ]
