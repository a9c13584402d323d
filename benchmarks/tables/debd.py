"""Test log-likelihood on seven binary sets of the density estimation benchmark, beside published NADE-family figures.

    python benchmarks/tables/debd.py --data DATA --sets nltcs dna --recipe any-order --options '{"minutes": 5}'

A row is an image of one line with two grey levels, so that no probability goes to a stop or an escape. Training stops
by the standard validation split; the test split is scored once, under one order and as the mixture of several orders
(``--orders``), which is a distribution of its own (Uria et al. 2014, arXiv:1310.1757).
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import ancestral  # noqa: E402
from ancestral.errors import DataError  # noqa: E402
from ancestral.order import Order  # noqa: E402
from data import root_of  # noqa: E402
from record import record  # noqa: E402

FILES = {
    "nltcs": "nltcs",
    "plants": "plants",
    "jester": "jester",
    "netflix": "bnetflix",
    "accidents": "accidents",
    "audio": "baudio",
    "dna": "dna",
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "dna": {
        "nats": -82.31,
        "model": "ensemble of DeepNADE over orders (EoNADE)",
        "source": "Uria, Murray, Larochelle 2014, arXiv:1310.1757; their split has 1,400 training and 600 validation "
        "rows where this one has 1,600 and 400, the test rows are 1,186 in both",
    },
}
"""Only what was looked up. No NADE-family figure could be verified for the other six sets."""


def read(root: Path, name: str, part: str) -> np.ndarray:
    """Rows uint8 ``[n, 1, columns]``."""
    path = root / "debd" / f"{FILES[name]}.{part}.data.gz"
    if not path.exists():
        raise DataError(f"there is no {path}; give the folder of the data sets with --data or ANCESTRAL_DATA")
    with gzip.open(path, "rt") as handle:
        return np.loadtxt(handle, delimiter=",", dtype=np.uint8, ndmin=2)[:, None]


def mixture(model: ancestral.Model, rows: np.ndarray, orders: int, seed: int) -> tuple[float, float]:
    """Mean nats of a row under the model's own order, and under the mixture of it and random orders."""
    first = torch.from_numpy(np.array(model.log_prob(rows)))
    terms = [first]
    if model.generator.any_order:
        rng = np.random.default_rng(seed)
        for _ in range(orders - 1):
            rank = torch.from_numpy(rng.permutation(rows.shape[-1]))
            terms.append(torch.from_numpy(np.array(model.log_prob(rows, order=Order(rank)))))
    mixed = torch.logsumexp(torch.stack(terms), 0) - np.log(len(terms))
    return float(first.mean()), float(mixed.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--sets", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--recipe", default="any-order")
    parser.add_argument("--options", default="{}", help="arguments of the recipe and of training, as JSON")
    parser.add_argument("--orders", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    given = parser.parse_args()
    options = {"quiet": True, **json.loads(given.options)}
    found: dict[str, Any] = {}
    try:
        root = root_of(given.data)
        for name in given.sets:
            train, valid, test = (read(root, name, part) for part in ("train", "valid", "test"))
            start = time.perf_counter()
            model = ancestral.fit(train, recipe=given.recipe, validation=valid, seed=given.seed, **options)
            seconds = time.perf_counter() - start
            one, many = mixture(model, test, given.orders, given.seed)
            best = PUBLISHED.get(name, {}).get("nats")
            found[name] = {
                "columns": train.shape[-1],
                "test_nats_one_order": one,
                "test_nats_mixture": many,
                "orders": given.orders if model.generator.any_order else 1,
                "fit_seconds": seconds,
                "parameters": model.parameters,
                "at_least_published": None if best is None else max(one, many) >= best,
            }
            print(f"{name:10} {one:9.3f} {many:9.3f}   published {best}", flush=True)
    except DataError as error:
        sys.exit(f"debd.py: {error}")
    met = sum(1 for f in found.values() if f["at_least_published"])
    verdict = "reproduced" if met >= 4 else "not tested" if len(found) < len(FILES) else "not reproduced"
    print(
        record(
            "tables_debd",
            found,
            scale="standard train, validation and test splits; mean log-likelihood of a test row in nats",
            verdict=verdict,
            published=PUBLISHED,
            extra={"recipe": given.recipe, "options": given.options, "sets_at_least_published": met},
            folder=given.results,
        )
    )


if __name__ == "__main__":
    main()
