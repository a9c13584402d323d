"""CDNOW's purchases as a sequential table: held-out nats per customer, and how like the samples are.

Beside the model stands what simple counting reaches on the same split: every column by its frequencies in the training
customers (one added), a geometric number of purchases, gaps and amounts independent of all else.

    python benchmarks/tables/sequential.py --data ../shared/data/cdnow --seconds 120
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import ancestral

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def counted(train: pd.Series, test: pd.Series) -> float:
    """Nats of all test cells under the frequencies of the training cells, one added to each and to one unseen."""
    counts = train.value_counts()
    total = counts.sum() + len(counts) + 1
    return float(-np.log((test.map(counts).fillna(0).to_numpy() + 1) / total).sum())


def simple(train: pd.DataFrame, test: pd.DataFrame) -> float:
    """Nats per customer of independent columns and a geometric number of purchases."""
    nats = 0.0
    parts = []
    for rows in (train, test):
        rows = rows.sort_values(["users_id", "date"], kind="stable")
        day = pd.to_datetime(rows["date"])
        parts.append((rows, day.groupby(rows["users_id"]).diff().dt.days, rows.groupby("users_id")["date"].min()))
    (rows, gaps, firsts), (held, held_gaps, held_firsts) = parts
    stop = len(firsts) / len(rows)
    nats -= len(held_firsts) * np.log(stop) + (len(held) - len(held_firsts)) * np.log(1 - stop)
    nats += counted(firsts, held_firsts) + counted(gaps.dropna(), held_gaps.dropna())
    nats += counted(rows["cds"], held["cds"]) + counted(rows["amt"], held["amt"])
    return nats / len(held_firsts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of purchases.csv.gz and users.csv.gz")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.data / "purchases.csv.gz", dtype={"date": str})
    rows["date"] = pd.to_datetime(rows["date"])
    users = pd.read_csv(arguments.data / "users.csv.gz")
    users = users.sample(frac=1, random_state=0).reset_index(drop=True)
    cut = int(0.8 * len(users))
    seen, unseen = users[:cut], users[cut:]
    train, test = (rows[rows["users_id"].isin(part["id"])] for part in (seen, unseen))
    model = ancestral.fit(
        train, context=seen, key="users_id", time="date", context_key="id", minutes=arguments.seconds / 60,
        seed=arguments.seed, quiet=True,
    )  # fmt: skip
    parts = model.log_prob(test, unseen, per_part=True)
    strange = float((~test["amt"].isin(train["amt"])).mean())
    drawn = model.sample(len(unseen), seed=1).rows
    ours = {
        "nats_per_customer": float(-parts.sum(axis=1).mean()),
        "nats_per_part": (-parts.mean()).to_dict(),
        "steps": model.history.steps,
        "parameters": model.parameters,
        "share_of_test_amounts_not_in_training": strange,
        "samples": _summary(drawn, len(unseen)),
        "test_rows": _summary(test, len(unseen)),
    }
    peers = {"independent columns and a geometric number": {"nats_per_customer": simple(train, test)}}
    from record import record

    path = record(
        "sequential_cdnow",
        ours,
        peers,
        scale=f"{len(seen):,} customers to train on, {len(unseen):,} held out, {arguments.seconds:g} s",
        verdict="reproduced"
        if ours["nats_per_customer"] < next(iter(peers.values()))["nats_per_customer"]
        else "not reproduced",
        published="goal: number of events and stop are learned; below independent columns on held-out customers",
        packages=("pandas",),
    )
    print(path.read_text())


def _summary(rows: pd.DataFrame, customers: int) -> dict[str, float]:
    """Figures that samples and real purchases should share."""
    count = rows.groupby("users_id").size().reindex(rows["users_id"].unique())
    gaps = rows.sort_values(["users_id", "date"]).groupby("users_id")["date"].diff().dt.days.dropna()
    return {
        "mean_purchases": float(len(rows) / customers),
        "share_of_one_purchase": float((count == 1).sum() / customers),
        "share_of_five_or_more": float((count >= 5).sum() / customers),
        "most_purchases": float(count.max()),
        "median_gap_days": float(gaps.median()),
        "mean_cds": float(rows["cds"].mean()),
        "median_amount": float(rows["amt"].median()),
        "share_after_the_last_day": float((rows["date"] > "1998-06-30").mean()),
    }


if __name__ == "__main__":
    main()
