"""What the table of equal budgets says about the claims of single recipes: one result file each.

python benchmarks/images/claims.py --data mnist

A claim that a recipe draws better images than another, or as good ones, is answered by the Frechet distances of the two
rows, each at its better guidance scale. A difference within twice the distances' spread counts as none.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from record import RESULTS, record  # noqa: E402

CLAIMS = {
    "rar": (
        "llamagen",
        "better",
        "better samples than the same model in raster order throughout (ImageNet, 256 x 256)",
    ),
    "aim": ("llamagen", "as good", "samples at least as good as those of causal transformers of its size (ImageNet)"),
    "imagefolder": ("var", "better", "better reconstructions and samples than one code per place (ImageNet)"),
    "tokenbridge": ("mar", "as good", "samples as good as those of continuous tokens (ImageNet, 256 x 256)"),
}
"""Recipe -> which other one it is held against, how it is claimed to compare, and what was published."""


def best(row: dict[str, Any]) -> dict[str, Any]:
    """The draws of the better guidance scale."""
    scale = min(row["draws"], key=lambda g: row["draws"][g]["frechet"])
    kept = ("frechet", "frechet_spread", "class_accuracy", "precision", "recall", "forward_passes_per_image")
    found = {name: row["draws"][scale][name] for name in kept}
    found |= {"guidance": float(scale), "parameters": row["parameters"], "steps": row["steps"], "tokens": row["tokens"]}
    return found | ({"rfid": row["rfid"]} if "rfid" in row else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    given = parser.parse_args()
    table = json.loads((RESULTS / f"equal_budget_{given.data}.json").read_text(encoding="utf-8"))
    rows = table["ours"]["rows"]
    for name, (rival, how, published) in CLAIMS.items():
        if name not in rows or rival not in rows:
            print(f"{name}: no rows for it and {rival} yet")
            continue
        ours, theirs = best(rows[name]), best(rows[rival])
        margin = 2 * (ours["frechet_spread"] ** 2 + theirs["frechet_spread"] ** 2) ** 0.5
        less = theirs["frechet"] - ours["frechet"]
        met = less > margin if how == "better" else less > -margin
        if name == "imagefolder":
            met = met and ours["rfid"] < theirs["rfid"]
        print(
            record(
                name,
                {name: ours, rival: theirs, "frechet_below_the_rival_by": less, "margin": margin},
                scale=table["scale"],
                verdict="reproduced" if met else "not reproduced",
                published=published,
                command=table["command"],
                extra={
                    **{k: table["extra"][k] for k in ("feature_network", "reference")},
                    "note": "one training run of each at a small fraction of the published sizes and budgets; the "
                    "margin is that of the draws, and does not hold the spread between training runs",
                },
            )
        )


if __name__ == "__main__":
    main()
