"""Fit one other system on a csv, draw from it, score, impute; all it did and took goes to a folder.

Runs with the Python of an environment of its own, which needs neither ancestral nor its dependencies::

    python -m venv peers && peers/bin/pip install torch==2.13.0 && peers/bin/pip install mostlyai-engine sdv
    peers/bin/pip uninstall -y torchvision torchaudio
    peers/bin/python benchmarks/tables/peers.py ctgan --train train.csv --test test.csv --out results/ctgan

``adult.py`` calls it; it finds the environment by ``--peers FOLDER`` or ``ANCESTRAL_PEERS``. All systems run with
their defaults. The folder gets ``times.json``, ``synthetic.csv``, ``log_prob.csv`` (nats, where there is a score) and
``imputed-K.csv`` (the K-th draw).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SYSTEMS = ("mostlyai-engine", "gaussian-copula", "ctgan", "tvae")


def read(path: Path, dates: list[str], like: pd.DataFrame | None = None) -> pd.DataFrame:
    """A table with pandas' types; whole numbers with gaps stay whole where ``like`` has them whole."""
    frame = pd.read_csv(path, parse_dates=dates)
    for name in () if like is None else frame.columns:
        if pd.api.types.is_integer_dtype(like[name]) and not pd.api.types.is_integer_dtype(frame[name]):
            frame[name] = frame[name].astype("Int64")
    return frame


class Mostly:
    """mostlyai-engine's TabularARGN."""

    def __init__(self, train: pd.DataFrame, seed: int, out: Path, options: dict[str, Any]):
        from mostlyai.engine import TabularARGN

        self.model = TabularARGN(random_state=seed, workspace_dir=out / "workspace", verbose=0, **options)
        self.train = train

    def fit(self) -> None:
        self.model.fit(self.train)

    def sample(self, rows: int) -> pd.DataFrame:
        return self.model.sample(rows)

    def log_prob(self, test: pd.DataFrame) -> np.ndarray:
        return np.asarray(self.model.log_prob(test))

    def impute(self, gaps: pd.DataFrame) -> pd.DataFrame:
        return self.model.impute(gaps)


class Sdv:
    """One of SDV's synthesizers of single tables, told what every column is rather than left to guess."""

    NAMES = {"gaussian-copula": "GaussianCopulaSynthesizer", "ctgan": "CTGANSynthesizer", "tvae": "TVAESynthesizer"}

    def __init__(self, kind: str, train: pd.DataFrame, seed: int, options: dict[str, Any]):
        import torch
        from sdv import single_table
        from sdv.metadata import Metadata

        np.random.seed(seed)
        torch.manual_seed(seed)
        columns = {}
        for name in train.columns:
            date = pd.api.types.is_datetime64_any_dtype(train[name])
            number = pd.api.types.is_numeric_dtype(train[name])
            columns[name] = {"sdtype": "datetime" if date else "numerical" if number else "categorical"}
        metadata = Metadata.load_from_dict({"tables": {"table": {"columns": columns}}, "relationships": []})
        self.kind, self.train = kind, train
        self.model = getattr(single_table, self.NAMES[kind])(metadata, **options)

    def fit(self) -> None:
        self.model.fit({"table": self.train})

    def sample(self, rows: int) -> pd.DataFrame:
        return self.model.sample(num_rows=rows)["table"]

    def log_prob(self, test: pd.DataFrame) -> np.ndarray:
        raise NotImplementedError("SDV gives no probability of a row")

    def impute(self, gaps: pd.DataFrame) -> pd.DataFrame:
        if self.kind != "gaussian-copula":
            raise NotImplementedError("conditions by rejection only, which finds no row of given numbers")
        rows = []
        for i in range(len(gaps)):
            # Every row knows other columns, so every row is a condition of its own.
            known = gaps.iloc[[i]].dropna(axis=1)
            known = known.astype({c: self.train[c].dtype for c in known.columns})
            try:
                drawn = self.model.sample_remaining_columns(known)["table"]
            except Exception:  # it says "sampling terminated" for some rows
                drawn = known[:0]
            rows.append(drawn.iloc[0] if len(drawn) else gaps.iloc[i])
        return pd.DataFrame(rows, columns=gaps.columns)


def timed(what: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a call gives, its seconds, and its seconds of processor (children that ended included).

    With one thread the latter is what a machine without other work would take.
    """
    wall, used = time.perf_counter(), _used()
    return what(), time.perf_counter() - wall, _used() - used


def _used() -> float:
    return sum(os.times()[:4])


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Everything that the system can do; what it cannot is noted with the reason."""
    out: Path = given.out
    out.mkdir(parents=True, exist_ok=True)
    dates = [d for d in given.dates.split(",") if d]
    train = read(given.train, dates)
    options = dict(json.loads(given.options))
    mostly = given.system == "mostlyai-engine"
    model = Mostly(train, given.seed, out, options) if mostly else Sdv(given.system, train, given.seed, options)
    notes: dict[str, Any] = {"system": given.system, "seed": given.seed, "options": options, "train_rows": len(train)}
    _, notes["fit_seconds"], notes["fit_cpu_seconds"] = timed(model.fit)
    _write(out, notes)
    rows = given.rows or len(train)
    model.sample(100)  # whatever a first call sets up is not part of the rate
    synthetic, seconds, used = timed(lambda: model.sample(rows))
    synthetic.to_csv(out / "synthetic.csv", index=False)
    notes |= {
        "sampled_rows": len(synthetic),
        "sample_seconds": seconds,
        "sample_rows_per_second": rows / seconds,
        "sample_rows_per_cpu_second": rows / used,
    }
    _write(out, notes)
    if given.test:
        test = read(given.test, dates, train)
        try:
            scores, seconds, used = timed(lambda: model.log_prob(test))
            pd.DataFrame({"nats": scores}).to_csv(out / "log_prob.csv", index=False)
            notes |= {
                "log_prob_rows_per_second": len(test) / seconds,
                "log_prob_rows_per_cpu_second": len(test) / used,
                "log_prob_mean_nats": float(np.mean(scores)),
            }
        except Exception as error:
            notes["log_prob"] = f"not available: {error}"
    if given.gaps:
        gaps = read(given.gaps, dates, train)
        gaps = gaps.head(given.copula_rows if given.system == "gaussian-copula" else given.impute_rows)
        try:
            for k in range(1 if given.system == "gaussian-copula" else given.draws):
                filled, notes["impute_seconds"], _ = timed(lambda: model.impute(gaps))
                filled.to_csv(out / f"imputed-{k}.csv", index=False)
        except Exception as error:
            notes["impute"] = f"not available: {error}"
    _write(out, notes)
    return notes


def _write(out: Path, notes: dict[str, Any]) -> None:
    packages = ("torch", "mostlyai-engine", "sdv", "ctgan", "pandas", "numpy")
    versions = {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}
    (out / "times.json").write_text(json.dumps({**notes, "versions": versions}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, help="score these rows")
    parser.add_argument("--gaps", type=Path, help="fill the empty cells of these rows")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, help="to draw; default: as many as there are to train on")
    parser.add_argument("--impute-rows", type=int, default=2000, help="rows that are imputed")
    parser.add_argument("--draws", type=int, default=5, help="imputations of every row")
    parser.add_argument("--copula-rows", type=int, default=300, help="rows that the copula imputes, one at a time")
    parser.add_argument("--dates", default="", help="columns of dates, separated by commas")
    parser.add_argument("--options", default="{}", help="arguments of the system as JSON, for a trial")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
