"""Fit a recipe of ancestral on a csv, draw from it, score, impute: the same files and figures as ``peers.py``.

    python ours.py --train train.csv --test test.csv --gaps gaps.csv --out results/ours --recipe any-order \
        --options '{"minutes": 3}'
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import ancestral
from ancestral.data.table import Table
from ancestral.files import write_json


def timed(what: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call gives, its seconds, and its seconds of processor.

    With one thread the latter is what a machine without other work would take.
    """
    wall, used = time.perf_counter(), sum(os.times()[:4])
    return what(), time.perf_counter() - wall, sum(os.times()[:4]) - used


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that the peers are asked to do."""
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    train, test = Table.read(given.train), Table.read(given.test)
    options = {"quiet": True, **json.loads(given.options)}
    model, seconds, used = timed(lambda: ancestral.fit(train, recipe=given.recipe, seed=given.seed, **options))
    notes: dict[str, Any] = {
        "system": "ancestral",
        "recipe": model.name,
        "seed": given.seed,
        "options": options,
        "train_rows": len(train),
        "fit_seconds": seconds,
        "fit_cpu_seconds": used,
        "parameters": model.parameters,
    }
    model.save(out / "model.ancestral")
    rows, batch = given.rows or len(train), given.batch_size
    model.sample(100)  # whatever a first call sets up is not part of the rate
    _, seconds, used = timed(
        lambda: model.sample(rows, seed=given.seed, batch_size=batch)
    )  # a frame, as the peers give
    model.sample(rows, seed=given.seed, batch_size=batch, as_dataset=True).save(out / "synthetic.csv", overwrite=True)
    notes |= {
        "sampled_rows": rows,
        "sample_seconds": seconds,
        "sample_rows_per_second": rows / seconds,
        "sample_rows_per_cpu_second": rows / used,
    }
    scores, seconds, used = timed(lambda: model.log_prob(test, batch_size=batch))
    pd.DataFrame({"nats": np.asarray(scores)}).to_csv(out / "log_prob.csv", index=False)
    notes |= {
        "log_prob_rows_per_second": len(test) / seconds,
        "log_prob_rows_per_cpu_second": len(test) / used,
        "log_prob_mean_nats": float(np.mean(scores)),
    }
    gaps = Table.read(given.gaps)
    gaps = gaps.take(np.arange(min(given.impute_rows, len(gaps))))
    for k in range(given.draws):
        filled, notes["impute_seconds"], _ = timed(
            lambda seed=k: model.complete(gaps, seed=seed, batch_size=batch, as_dataset=True)
        )
        filled.save(out / f"imputed-{k}.csv", overwrite=True)
    write_json(out / "times.json", notes)
    return notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("train", "test", "gaps", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--recipe", help="default: the library's for tables")
    parser.add_argument("--options", default="{}", help="arguments of the recipe and of training, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="to draw; default: as many as there are to train on")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--impute-rows", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, help="default: the library's")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
