"""Quality of what a system left in its folder (``peers.py``, ``ours.py``): the same measures for all.

python quality.py FOLDER --train train.csv --test test.csv --gaps gaps.csv --target income
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestral.evaluation import tables


def read_words(path: Path) -> pd.DataFrame:
    """A csv with every cell as its word, empty where it is missing."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def hide(test: pd.DataFrame, share: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """The rows (all cells words) with ``share`` of the cells emptied, drawn at random; every row keeps one cell.

    Cells that are empty already stay so and are not counted as hidden.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.random(test.shape) < share
    full = hidden.all(1)
    hidden[full, rng.integers(0, test.shape[1], int(full.sum()))] = False
    return test.mask(hidden, "")


def imputation_error(
    test: pd.DataFrame, gaps: pd.DataFrame, fills: list[pd.DataFrame], train: pd.DataFrame
) -> dict[str, Any]:
    """How far filled cells are from the hidden ones.

    Words: the share that is wrong. Numbers and dates: the mean absolute error as a share of the error that the
    training median makes. ``draw`` is the mean over single draws, ``point`` the commonest word or the median over the
    draws; ``error`` is the mean over the columns. What a system left empty counts as the training median, or as wrong.

    Args:
        test, gaps: the rows before and after :func:`hide`, cells as words.
        fills: one filled table per draw, rows in the same order; may be fewer rows than ``test``.
        train: the training rows.
    """
    rows = min(len(f) for f in fills)
    test, gaps = test[:rows], gaps[:rows]
    columns: dict[str, dict[str, float]] = {}
    for name, kind in tables.kinds(train).items():
        asked = ((gaps[name] == "") & (test[name] != "")).to_numpy()
        if not asked.any():
            continue
        if kind == "words":
            truth = tables.words(test[name])[asked].astype(str)
            filled = np.stack([tables.words(f[name][:rows])[asked].astype(str) for f in fills])
            mode = np.array([pd.Series(column).mode()[0] for column in filled.T])
            columns[name] = {"draw": float((filled != truth).mean()), "point": float((mode != truth).mean())}
            continue
        truth = tables.numbers(test[name], kind)[asked]
        middle = float(np.nanmedian(tables.numbers(train[name], kind)))
        filled = np.stack([tables.numbers(f[name][:rows], kind)[asked] for f in fills])
        filled = np.where(np.isnan(filled), middle, filled)
        scale = float(np.abs(truth - middle).mean())
        if scale == 0:
            continue  # nothing to predict
        errors = (np.abs(filled - truth).mean(), np.abs(np.median(filled, 0) - truth).mean())
        columns[name] = {"draw": float(errors[0]) / scale, "point": float(errors[1]) / scale}
    mean = {which: float(np.mean([c[which] for c in columns.values()])) for which in ("draw", "point")}
    return {"error": mean, "columns": columns, "rows": rows, "draws": len(fills)}


def judge(
    folder: Path,
    train: pd.DataFrame,
    test: pd.DataFrame,
    gaps: pd.DataFrame,
    target: str,
    seed: int = 0,
    draws: int | None = None,
) -> dict[str, Any]:
    """All measures of one system; what it could not do is None. Of the imputations the first ``draws`` count."""
    synthetic = read_words(folder / "synthetic.csv")
    fills = [read_words(path) for path in sorted(folder.glob("imputed-*.csv"))[:draws]]
    near = tables.privacy(synthetic, train, test, seed=seed)
    return {
        "two_sample_auc": tables.two_sample_auc(test, synthetic, seed=seed),
        "train_on_synthetic": tables.usefulness(tables.cut(synthetic, len(train), seed), test, target, seed),
        "imputation": imputation_error(test, gaps, fills, train) if fills else None,
        "mean_marginal_distance": float(np.mean(list(tables.marginals(test, synthetic).values()))),
        "copies": near.copies,
        "closer_to_training": near.closer,
    }


def control(train: pd.DataFrame, test: pd.DataFrame, target: str, seed: int = 0) -> dict[str, Any]:
    """The same measures of the real training rows: what the best possible system would get."""
    return {
        "two_sample_auc": tables.two_sample_auc(test, train, seed=seed),
        "train_on_real": tables.usefulness(train, test, target, seed),
        "copies_among_test_rows": tables.copy_share(test, train),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name in ("train", "test", "gaps"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test, gaps = (read_words(p) for p in (given.train, given.test, given.gaps))
    print(json.dumps(judge(given.folder, train, test, gaps, given.target, given.seed), indent=1))


if __name__ == "__main__":
    main()
