"""Rows per second that a fitted model of a table draws, scores, compresses and decompresses, on all cores.

    python benchmarks/tables/rates.py --data DATA --options '{"epochs": 10}'
    python benchmarks/tables/rates.py --data DATA --model adult.ancestral

Drawing gives a DataFrame, scoring takes the test table as it was read: what a user calls, with the defaults. Each
figure is the best of ``--repeats`` calls, since other work on the machine can only slow a call down.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import ancestral  # noqa: E402
import data as sources  # noqa: E402
from ancestral.data.table import Table  # noqa: E402
from ancestral.errors import DataError  # noqa: E402
from record import record  # noqa: E402

GOALS = {"sample": 100_000, "log_prob": 50_000, "compress": 5_000, "decompress": 5_000}


def fastest(what: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """What a call gives, the fewest seconds of several calls, and the fewest seconds of processor."""
    wall, used = [], []
    for _ in range(repeats):
        start, began = time.perf_counter(), time.process_time()
        out = what()
        wall.append(time.perf_counter() - start)
        used.append(time.process_time() - began)
    return out, min(wall), min(used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=sources.SOURCES, default="adult")
    parser.add_argument("--data")
    parser.add_argument("--model", type=Path, help="a saved model, instead of fitting one")
    parser.add_argument("--options", default="{}", help="arguments of the recipe and of training, as JSON")
    parser.add_argument("--rows", type=int, default=100_000, help="to draw")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory(prefix="ancestral.") as folder:
            train_csv, test_csv = sources.split(given.table, sources.root_of(given.data), Path(folder))
            train, test = Table.read(train_csv), Table.read(test_csv)
    except DataError as error:
        sys.exit(f"rates.py: {error}")
    if given.model:
        model = ancestral.load(given.model)
    else:
        model = ancestral.fit(train, quiet=True, **json.loads(given.options))
    model.sample(100)  # whatever a first call sets up is not part of the rates
    frame, *sampled = fastest(lambda: model.sample(given.rows, seed=1), given.repeats)
    _, *scored = fastest(lambda: model.log_prob(test), given.repeats)
    blob, *packed = fastest(lambda: model.compress(test), 2)
    back, *unpacked = fastest(lambda: model.decompress(blob, as_dataset=True), 2)
    if len(frame) != given.rows or any((back.cells(c) != test.cells(c)).any() for c in test.columns):
        raise RuntimeError("rows are missing, or decompressing did not give the test table back")
    rows = {"sample": given.rows, "log_prob": len(test), "compress": len(test), "decompress": len(test)}
    taken = {"sample": sampled, "log_prob": scored, "compress": packed, "decompress": unpacked}
    found: dict[str, Any] = {"recipe": model.name, "parameters": model.parameters, "threads": torch.get_num_threads()}
    for name, (wall, used) in taken.items():
        found[f"{name}_rows_per_second"] = rows[name] / wall
        found[f"{name}_rows_per_cpu_second"] = rows[name] / used
    goals = {f"{name}_{least}": found[f"{name}_rows_per_second"] >= least for name, least in GOALS.items()}
    print(json.dumps({**found, "goals": goals, "load": os.getloadavg()}, indent=1))
    print(
        record(
            f"tables_rates_{given.table}",
            found,
            scale=f"{given.rows} rows drawn as a DataFrame, {len(test)} held-out rows scored and coded, all columns; "
            f"defaults, {torch.get_num_threads()} threads",
            verdict="reproduced" if all(goals.values()) else "not reproduced",
            published="own goals on adult with 2 cores: 100,000 rows/s drawn, 50,000 scored, 5,000 compressed",
            extra={"goals": goals, "options": given.options},
            packages=("pandas",),
            folder=given.results,
        )
    )


if __name__ == "__main__":
    main()
