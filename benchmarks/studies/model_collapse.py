"""Model collapse over generations: linear regression against its formula, and any library model of any data.

python benchmarks/studies/model_collapse.py
python benchmarks/studies/model_collapse.py --recipe nade --table train.csv --options '{"steps": 200}'
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ancestral.recipes.registry import studies  # noqa: E402
from record import record  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="nade")
    parser.add_argument("--table", help="file that the recipe's model learns; default: regression only")
    parser.add_argument("--options", default='{"steps": 200}')
    parser.add_argument("--generations", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1500)
    given = parser.parse_args()
    run = studies()["model-collapse-accumulate"].build
    regression = run(generations=given.generations, seeds=given.seeds * 20, rows=100, features=10)
    ours = {"regression": regression}
    if given.table:
        ours["model"] = run(
            recipe=given.recipe, data=given.table, generations=given.generations, seeds=given.seeds, rows=given.rows,
            options=given.options,
        )  # fmt: skip
    grows, off, growth = [], 0.0, {}
    for name, found in ours.items():
        replaced, kept = (np.array(found[way]["mean"]) for way in ("replace", "accumulate"))
        grows.append(bool(replaced[-1] - replaced[0] > 2 * (kept[-1] - kept[0])))
        growth[name] = {
            "replace": float(replaced[-1] - replaced[0]),
            "accumulate": float(kept[-1] - kept[0]),
            "accumulate_still_rises_at_the_end": bool(kept[-1] > kept[-2]),
        }
    for way in ("replace", "accumulate"):
        mean, formula = (np.array(regression[way][k]) for k in ("mean", "formula"))
        off = max(off, float(np.abs(mean / formula - 1).max()))
    print(json.dumps(ours, indent=1))
    print(
        record(
            "model-collapse-accumulate",
            ours,
            scale=f"{given.generations} generations; regression of 100 rows and 10 features, {given.seeds * 20} seeds"
            + (f"; {given.recipe} on {given.rows} rows of a table, {given.seeds} seeds" if given.table else ""),
            verdict="reproduced" if all(grows) and off < 0.2 else "not reproduced",
            published="test error grows with the generations when data are replaced and stays bounded when they are "
            "accumulated, in regression by pi^2/6 at most",
            extra={
                "largest_relative_gap_to_the_formula": off,
                "growth": growth,
                "options": given.options if given.table else "",
            },
        )
    )


if __name__ == "__main__":
    main()
