"""Commands that measure: score, compress, decompress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from ancestral.commands.arguments import Data, MaybeText, RecipeFile, Saved, Settings
from ancestral.errors import DataError


def score(
    model: Positional[Saved],
    data: Positional[Data],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="SCORES.csv", help_behavior_hint="(optional)")] = None,
    per_site: bool = False,
    label: MaybeText = None,
    order: MaybeText = None,
    bound: int = 0,
    set_: Settings = (),
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Tell how probable items are: bits per dimension, and a score for each item.

    Args:
        model: a saved model.
        data: items of the kind that the model was fitted on.
        out: write one row per item: a .csv, or a .npz for arrays.
        per_site: also write the bits of every site (pixel, symbol) or column of a table; needs --out.
        label: score given this class; `own` takes each item's own label. By default labels are withheld.
        order: score under this order (raster, reverse, hilbert ...) rather than the model's own.
        bound: if positive, average over so many random orders: a lower bound for any-order models.
        set_: an option of the reader (size=32).
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the summary as JSON.
    """
    import math

    import numpy as np

    from ancestral.commands import console
    from ancestral.data import TableFiles

    if per_site and out is None:
        raise DataError("--per-site writes one number per site to a file; add --out scores.csv or scores.npz")
    if out is not None:
        if out.suffix.lower() not in (".csv", ".npz"):
            raise DataError(f"scores are written as .csv or .npz, not as {out.name}; change --out")
        console.reserve(out, folder=False)
    loaded = console.load(model, recipe)
    console.refuse_for_streams(loaded, label=label, order=order, bound=bound)
    dataset = console.read_for(loaded, data, set_, whole=False)
    if isinstance(dataset, TableFiles):
        if label is not None or order is not None or bound or (out is not None and out.suffix.lower() != ".csv"):
            raise DataError("files that are read chunk by chunk are scored into a .csv, without label, order and bound")
        _score_chunks(loaded, dataset, out, per_site, json)
        return
    result = loaded.log_prob(
        dataset, label=console.label_of(loaded, label), order=order, bound=bound, per_site=per_site
    )
    nats = np.asarray(result)
    bits = -nats / math.log(2)
    if out is not None:
        _write_scores(out, dataset, bits, result, getattr(loaded.tokenizer, "columns", None))
    summary = {
        "items": len(nats),
        "bits_per_dim": result.bits_per_dim(),
        "kind": result.kind,
        "of": result.of,
        "mean_nats": float(nats.mean()),
        "dimensions": int(np.asarray(result.scalars).sum()),
        "out": out,
    }
    if json:
        console.emit(summary)
        return
    words = {
        "exact": "exact",
        "lower_bound": "an upper bound, since log p is a lower bound",
        "estimate": "an estimate",
    }
    of = {"codes": "code", "latents": "latent (a density)"}.get(result.of, "dimension")
    rows = [
        ("items", f"{console.counted(dataset)} of {summary['dimensions']:,} dimensions in all"),
        (f"bits per {of}", f"{summary['bits_per_dim']:.4f} ({words[result.kind]})"),
        ("bits per item", f"{bits.mean():.1f} on average, {bits.min():.1f} to {bits.max():.1f}"),
    ]
    console.facts(rows + ([("written to", out)] if out is not None else []))


def compress(
    model: Positional[Saved],
    data: Positional[Data],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE.anc", help_behavior_hint="(optional)")] = None,
    verify: bool = False,
    set_: Settings = (),
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Compress data without loss, to about -log2 p bits.

    Args:
        model: a saved model; decompressing needs the same one.
        data: items of the kind that the model was fitted on.
        out: the compressed file; by default DATA's name with .anc, in this folder.
        verify: decompress again and compare before writing.
        set_: an option of the reader (size=32).
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the summary as JSON.
    """
    import time

    from ancestral.commands import console
    from ancestral.files import atomic_path

    target = out or Path(data.resolve().name.split(".")[0] + ".anc")
    console.reserve(target, folder=False)
    loaded = console.load(model, recipe)
    dataset = console.read_for(loaded, data, set_)
    before = console.bytes_of(data)
    started = time.perf_counter()
    blob = loaded.compress(dataset)
    seconds = time.perf_counter() - started
    if verify and not _same(loaded.decompress(blob, as_dataset=True), dataset):
        raise DataError(f"decompressing did not give back {data}; nothing was written, please report this")
    with atomic_path(target) as path:
        path.write_bytes(blob)
    dims = sum(loaded.tokenizer.size(dataset, i) for i in range(len(dataset)))
    rate = 8 * len(blob) / max(dims, 1)
    if json:
        content = {"out": target, "bytes_before": before, "bytes_after": len(blob), "bits_per_dim": rate}
        console.emit({**content, "ratio": before / len(blob), "seconds": seconds, "verified": verify})
        return
    console.facts(
        [
            ("before", f"{console.human(before)} ({data})"),
            ("after", f"{console.human(len(blob))} ({target})"),
            ("ratio", f"{before / len(blob):.2f}, {rate:.4f} bits per dimension"),
            ("time", f"{seconds:.1f} s" + (", round trip verified" if verify else "")),
        ]
    )


def decompress(
    model: Positional[Saved],
    data: Positional[Annotated[Path, arg(metavar="FILE.anc")]],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PATH")],
    overwrite: bool = False,
    recipe: RecipeFile = None,
    json: bool = False,
) -> None:
    """Give back, bit for bit, what was compressed.

    Args:
        model: the model that compressed it.
        data: a compressed file.
        out: where to write the items: a folder, or a file whose suffix names the format.
        overwrite: replace a folder that is not empty.
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
        json: print the summary as JSON.
    """
    from ancestral.commands import console
    from ancestral.data import write
    from ancestral.data.base import existing, read_bytes

    console.reserve(out, folder=not out.suffix, overwrite=overwrite)
    if existing(data).is_dir():
        raise DataError(f"{data} is a folder; give the one file that `ancestral compress` wrote")
    blob = read_bytes(data)
    dataset = console.load(model, recipe).decompress(blob, as_dataset=True)
    write(dataset, out, overwrite=True)  # reserve() has asked
    if json:
        console.emit({"n": len(dataset), "out": out})
    else:
        console.stdout().print(f"{console.counted(dataset)} in {out}", markup=False)


def _same(first: Any, second: Any) -> bool:
    """Whether two datasets hold the same items."""
    import numpy as np

    if first.modality == "images":
        return bool(np.array_equal(first.pixels, second.pixels))
    if first.modality == "table":
        mine, other = first.frame, second.frame
        return list(mine.columns) == list(other.columns) and mine.astype(str).equals(other.astype(str))
    if first.modality == "audio":
        return all(map(np.array_equal, first.clips, second.clips)) and len(first) == len(second)
    return first.payloads == second.payloads if hasattr(first, "payloads") else first.items == second.items


def _score_chunks(model: Any, data: Any, out: Path | None, per_column: bool, json: bool) -> None:
    """Score a table larger than memory."""
    import tempfile

    from ancestral.commands import console
    from ancestral.tables import score_to

    with tempfile.TemporaryDirectory() as place:
        done = score_to(model, data, out or Path(place) / "scores.csv", per_column=per_column)
    rate = done["bits_per_dim"]
    if json:
        dimensions = done["rows"] * len(model.tokenizer.columns)
        told = {"items": done["rows"], "bits_per_dim": rate, "kind": done["kind"], "mean_nats": done["mean_nats"]}
        console.emit({**told, "dimensions": dimensions, "out": out})
        return
    rows = [
        ("items", f"{done['rows']:,} rows, read chunk by chunk"),
        ("bits per dimension", f"{rate:.4f} ({done['kind'].replace('_', ' ')})"),
        ("bits per item", f"{done['bits_per_row']:.1f} on average"),
    ]
    console.facts(rows + ([("written to", out)] if out is not None else []))


def _write_scores(out: Path, dataset: Any, bits: Any, result: Any, columns: dict[str, slice] | None) -> None:
    import csv
    import math

    import numpy as np

    from ancestral.files import atomic_path

    sizes = np.asarray(result.scalars)
    sites = None if result.per_site is None else -result.per_site / math.log(2)
    with atomic_path(out) as path:
        if out.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {"nats": np.asarray(result), "dimensions": sizes, "kind": np.array(result.kind)}
            with path.open("wb") as binary:
                np.savez_compressed(binary, **arrays, **({} if sites is None else {"site_bits": sites}))
            return
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            extra = [] if sites is None else [f"site_{i}_bits" for i in range(sites.shape[1])]
            if sites is not None and columns is not None:
                sites = np.stack([sites[:, own].sum(1) for own in columns.values()], 1)
                extra = [f"{name}_bits" for name in columns]
            writer.writerow(["item", "nats", "bits", "dimensions", "bits_per_dim", "kind", *extra])
            for i, each in enumerate(bits):
                name = dataset.names[i] if dataset.names is not None else i
                row = [name, float(result[i]), float(each), int(sizes[i]), float(each) / max(int(sizes[i]), 1)]
                writer.writerow([*row, result.kind, *([] if sites is None else sites[i].tolist())])
