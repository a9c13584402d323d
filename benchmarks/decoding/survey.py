"""The comparisons of decoders that two surveys ask for, each one table; see their studies.

python benchmarks/decoding/survey.py --study speculative-survey
python benchmarks/decoding/survey.py --study survey-llm-acceleration --data tiny_shakespeare.txt
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ancestral.recipes.registry import studies  # noqa: E402
from record import record  # noqa: E402

LEAST = 1e-3
"""P-value below which a decoder is held not to follow the model."""


def speculative(found: dict[str, Any]) -> bool:
    """Exact refiners keep the distribution or the greedy texts, and some drafter makes every refiner cheaper."""
    rows = found["pairs"].values()
    exact = all(row.get("p_value", 1.0) >= LEAST and row.get("equals_greedy", True) for row in rows)
    refiners = {row["refiner"] for row in rows}
    cheaper = all(min(row["calls"] for row in rows if row["refiner"] == refiner) < 0.8 for refiner in refiners)
    relaxed = all(
        found["pairs"][f"{row['drafter']} / typical acceptance"]["calls"] <= row["calls"] * 1.02
        for row in rows
        if row["refiner"] == "exact rejection"
    )
    return exact and cheaper and relaxed


def acceleration(found: dict[str, Any]) -> bool:
    """Exact ways follow the model; the others take fewer layers or passes than it."""
    rows = found["ways"].values()
    exact = all(row.get("p_value", 1.0) >= LEAST for row in rows)
    depth = max((row["layers"] for row in rows if "layers" in row), default=0.0)
    fewer = all(
        row["calls"] < 1 or row.get("layers", depth) < found["depth"]
        for row in rows
        if row["group"] != "autoregressive"
    )
    return exact and fewer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=("speculative-survey", "survey-llm-acceleration"), required=True)
    parser.add_argument("--data", default="", help="a text file; by default the text of Python's documentation")
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--draws", type=int, default=600)
    given = parser.parse_args()
    torch.set_num_threads(1)
    one = studies()[given.study]
    config = one.config(data=given.data, updates=given.updates, draws=given.draws)
    found = {"depth": config["depth"], **one.build(**config)}
    print(json.dumps(found, indent=1))
    holds = speculative(found) if given.study == "speculative-survey" else acceleration(found)
    source = f"the bytes of {Path(given.data).name}" if given.data else "the bytes of Python's documentation"
    print(
        record(
            given.study,
            found,
            scale=f"{config['depth']} layers of {config['width']} on {source}, {given.updates} steps of training; "
            f"{config['prompts']} prompts x {config['length']} bytes, batch 1, 1 thread; chi-square tests of "
            f"{given.draws} draws (p at least {LEAST})",
            verdict="reproduced" if holds else "not reproduced",
            published="a survey: it measures nothing of its own",
            command=f"python benchmarks/decoding/survey.py --study {given.study} --updates {given.updates} "
            f"--draws {given.draws}" + (f" --data {Path(given.data).name}" if given.data else ""),
        )
    )


if __name__ == "__main__":
    main()
