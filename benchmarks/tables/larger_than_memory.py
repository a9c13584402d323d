"""Fit, sample and score a table that memory never holds; every stage is a process of its own, with its peak memory.

Rows of Adult are drawn with replacement into a folder of parquet files; the model then adds rows of its own to the
folder, and all of them are scored as far as the time allows.

    python benchmarks/tables/larger_than_memory.py --data ../shared/data/adult --rows 20000000
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

NAMES = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)
PART = 1_000_000  # rows of a file
DRAWN = 16_384  # rows sampled or scored together


def generate(data: Path, folder: Path, rows: int) -> dict[str, Any]:
    """Write ``rows`` rows of Adult, drawn with replacement."""
    import numpy as np
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    options = pc.ReadOptions(column_names=list(NAMES))
    adult = pc.read_csv(data / "adult.data.gz", read_options=options)
    draw = np.random.default_rng(0)
    for part, start in enumerate(range(0, rows, PART)):
        index = draw.integers(0, len(adult), min(PART, rows - start))
        pq.write_table(adult.take(index), folder / f"resampled{part:03}.parquet", row_group_size=131_072)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return {"rows": rows, "bytes_on_disk": size, "bytes_as_csv": _csv(adult, rows)}


def _csv(adult: Any, rows: int) -> int:
    """Size of the same rows as csv."""
    import pyarrow as pa
    import pyarrow.csv as pc

    sink = pa.BufferOutputStream()
    pc.write_csv(adult, sink)
    return int(sink.tell() / len(adult) * rows)


def fit(folder: Path, model: Path, seconds: float, recipe: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fit on all files."""
    import ancestral

    began = time.perf_counter()
    fitted = ancestral.fit(
        str(folder / "*.parquet"),
        chunk=131_072,
        recipe=recipe or None,
        minutes=seconds / 60,
        quiet=True,
        eval_items=1_000,
        **options,
    )
    fitted.save(model)
    took = time.perf_counter() - began
    assert fitted.history is not None
    trained = fitted.history.rows[-1]["seconds"]
    return {
        "recipe": fitted.name,
        "two_passes_seconds": took - trained,
        "training_seconds": trained,
        "steps": fitted.history.steps,
        "validation_nats_per_site": fitted.history.best_loss,
    }


def sample(folder: Path, model: Path, rows: int) -> dict[str, Any]:
    """Sample rows into one more file of the folder."""
    import ancestral
    from ancestral.tables import sample_to

    loaded = ancestral.load(model)
    began = time.perf_counter()
    sample_to(loaded, rows, folder / "sampled.parquet", chunk=DRAWN, batch_size=1024)
    took = time.perf_counter() - began
    return {"rows": rows, "seconds": took, "rows_per_second": rows / took}


def score(folder: Path, model: Path, files: int) -> dict[str, Any]:
    """Score the sampled rows and the first files into a parquet file."""
    import ancestral
    from ancestral.data import read
    from ancestral.tables import score_to

    loaded = ancestral.load(model)
    paths = [folder / "sampled.parquet", *sorted(folder.glob("resampled*"))[:files]]
    began = time.perf_counter()
    done = score_to(loaded, read(paths, "table", chunk=DRAWN), folder.parent / "scores.parquet", batch_size=1024)
    took = time.perf_counter() - began
    return {
        "rows": done["rows"],
        "seconds": took,
        "rows_per_second": done["rows"] / took,
        "bits_per_row": done["bits_per_row"],
    }


def nothing() -> dict[str, Any]:
    """What the libraries alone take."""
    import pandas
    import pyarrow.parquet
    import torch

    import ancestral.model
    import ancestral.training

    return {"imported": [m.__name__ for m in (pandas, pyarrow.parquet, torch, ancestral.model, ancestral.training)]}


def _inside(connection: Any, stage: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    began = time.perf_counter()
    found = stage(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes on Linux
    connection.send({**found, "stage_seconds": time.perf_counter() - began, "peak_rss_bytes": peak})


def run(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run a stage in a fresh process and print what it found."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_inside, args=(theirs, stage, arguments))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    found = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
    print(stage.__name__, json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of adult.data.gz")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--seconds", type=float, default=45.0, help="of training")
    parser.add_argument("--recipe", default="any-order", help="empty for the library's default")
    parser.add_argument("--options", default='{"width": 32, "depth": 2}', help="of the recipe, as JSON")
    parser.add_argument("--sampled", type=int, default=100_000)
    parser.add_argument("--scored", type=int, default=0, help="files of a million resampled rows to score as well")
    parser.add_argument("--place", type=Path, default=None, help="folder for the files; by default a temporary one")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=arguments.place))
    try:
        folder, model = place / "rows", place / "model"
        folder.mkdir()
        found = {
            "libraries": run(nothing),
            "generate": run(generate, arguments.data, folder, arguments.rows),
            "fit": run(fit, folder, model, arguments.seconds, arguments.recipe, json.loads(arguments.options)),
            "sample": run(sample, folder, model, arguments.sampled),
            "score": run(score, folder, model, arguments.scored),
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)
    from record import record

    highest = max(found[stage]["peak_rss_bytes"] for stage in ("fit", "sample", "score"))
    found["peak_rss_gib"] = round(highest / 2**30, 3)
    print("peak memory", found["peak_rss_gib"], "GiB")
    bounded = found["fit"]["peak_rss_bytes"] < found["generate"]["bytes_as_csv"]
    path = record(
        "larger_than_memory",
        found,
        scale=f"{arguments.rows:,} rows of Adult drawn with replacement, {arguments.seconds:g} s training, "
        f"{arguments.sampled:,} rows sampled, {found['score']['rows']:,} scored",
        verdict="reproduced" if bounded and arguments.rows >= 20_000_000 else "not tested",
        published="goal: a table larger than memory is fitted, sampled to and scored with bounded memory",
        packages=("pandas", "pyarrow"),
    )
    print(path)


if __name__ == "__main__":
    main()
