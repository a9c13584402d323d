"""What the table of equal budgets and the timings say about the claims of single recipes: one result file each.

python benchmarks/images/claims.py --folder DATA --data mnist

A claim that a recipe draws better images than another, or as good ones, is answered by the Frechet distances of the two
rows, each at its better guidance scale; one about fewer passes of the same model by drawing anew from the model that
was kept. A difference within twice the distances' spread counts as none. Claims of speed are those of
``benchmarks/images/speed.py``. A claim of several parts is reproduced if all of them are.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
from equal_budget import Bench  # noqa: E402

import ancestral  # noqa: E402
from ancestral.data import Images  # noqa: E402
from ancestral.decoding.decoders import Confidence, Decoder  # noqa: E402
from ancestral.decoding.parallel import RandomSets  # noqa: E402
from ancestral.evaluation.images import figures  # noqa: E402
from record import RESULTS, record  # noqa: E402


@dataclass
class Claim:
    """What was published, and what answers it.

    Attributes:
        published: in words.
        rival: recipe whose images are compared; the recipe itself for one about its decoder.
        how: "better" or "as good".
        decoders: the fast one and the one pass per token that it is held against.
        speed: whether the factors measured for the recipe belong to the claim.
        reconstructs: whether reconstructions have to be better, too.
        cheaper: whether an image may not take more processor time than the rival's.
    """

    published: str
    rival: str
    how: str
    decoders: tuple[Decoder, Decoder] | None = None
    speed: bool = False
    reconstructs: bool = False
    cheaper: bool = False


CLAIMS = {
    "rar": Claim("better samples than the same model in raster order throughout (ImageNet, 256 x 256)", "llamagen",
                 "better"),
    "aim": Claim("samples at least as good as those of causal transformers of its size (ImageNet)", "llamagen",
                 "as good"),
    "imagefolder": Claim("better reconstructions and samples than one code per place (ImageNet)", "var", "better",
                         reconstructs=True),
    "tokenbridge": Claim("samples as good as those of continuous tokens (ImageNet, 256 x 256)", "mar", "as good"),
    "flowar": Claim("better samples than next-scale prediction of codes (ImageNet, 256 x 256)", "var", "better"),
    "mar": Claim("better samples than masked prediction of VQ codes, as fast (ImageNet, 256 x 256)", "maskgit",
                 "better", cheaper=True),
    "jpeg-lm": Claim("better samples than a model of VQ codes (ImageNet and others, 256 x 256)", "llamagen", "better"),
    "next-patch-prediction": Claim("better samples for 0.6 times the training cost (ImageNet, 256 x 256)", "llamagen",
                                   "better"),
    "neighboring-ar": Claim("better samples than PAR-4x, 2.4 times its throughput (ImageNet, 256 x 256)", "par",
                            "better", speed=True),
    "par": Claim("samples as good as in raster order, 3.6 times faster; 9.5 times with a small loss (ImageNet)",
                 "llamagen", "as good", speed=True),
    "var": Claim("better samples than in raster order, about 20 times faster (ImageNet, 256 x 256)", "llamagen",
                 "better", speed=True),
    "randar": Claim("samples as good as one by one, 2.5 times faster (ImageNet, 256 x 256)", "randar", "as good",
                    decoders=(RandomSets(6), RandomSets(16)), speed=True),
    "maskgit": Claim("8 to 12 passes give samples as good as one pass per token (ImageNet, 256 x 256)", "maskgit",
                     "as good", decoders=(Confidence(8, 4.5), Confidence(16, 4.5))),
}  # fmt: skip
KEPT = (
    "frechet", "frechet_spread", "class_accuracy", "precision", "recall", "forward_passes_per_image",
    "processor_seconds_per_image",
)  # fmt: skip


def best(row: dict[str, Any]) -> dict[str, Any]:
    """The draws of the better guidance scale."""
    scale = min(row["draws"], key=lambda g: row["draws"][g]["frechet"])
    found = {name: row["draws"][scale][name] for name in KEPT}
    found |= {"guidance": float(scale), "parameters": row["parameters"], "steps": row["steps"], "tokens": row["tokens"]}
    return found | ({"rfid": row["rfid"]} if "rfid" in row else {})


def drawn(bench: Bench, name: str, decoder: Decoder, guidance: float, samples: int) -> dict[str, Any]:
    """Figures of images that the kept model draws by another decoder."""
    model = ancestral.load(bench.work / "models" / name)
    labels = np.arange(samples) % len(bench.train.classes)
    made = model.sample(samples, label=list(labels), guidance=guidance, decoder=decoder, as_dataset=True)
    made = Images(made.pixels, labels, made.classes, made.levels)
    found = figures(bench.network, bench.test, made, reference=bench.reference, seed=0)
    kept = {key: found[key].value for key in ("frechet", "precision", "recall")}
    return {"decoder": str(decoder), "guidance": guidance, **kept, "frechet_spread": bench.spread(made)}


def quality(name: str, claim: Claim, rows: dict[str, Any], bench: Bench | None, samples: int) -> tuple[Any, bool]:
    """Both sides' figures, and whether the claim about images holds."""
    ours, theirs = best(rows[name]), best(rows[claim.rival])
    sides = (name, claim.rival)
    if claim.decoders is not None:
        assert bench is not None
        ours, theirs = (drawn(bench, name, d, ours["guidance"], samples) for d in claim.decoders)
        sides = ("fast", "one_pass_per_token")
    margin = 2 * (ours["frechet_spread"] ** 2 + theirs["frechet_spread"] ** 2) ** 0.5
    less = theirs["frechet"] - ours["frechet"]
    met = less > margin if claim.how == "better" else less > -margin
    if claim.reconstructs:
        met = met and ours["rfid"] < theirs["rfid"]
    if claim.cheaper:
        met = met and ours["processor_seconds_per_image"] <= theirs["processor_seconds_per_image"]
    return {sides[0]: ours, sides[1]: theirs, "frechet_below_the_other_by": less, "margin": margin}, met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data sets mnist and cifar10_png")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "build" / "equal_budget")
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    table = json.loads((RESULTS / f"equal_budget_{given.data}.json").read_text(encoding="utf-8"))
    place = RESULTS / "images_speed.json"
    timed = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else None
    rows, bench = table["ours"]["rows"], None
    for name, claim in CLAIMS.items():
        if name not in rows or claim.rival not in rows or (claim.speed and timed is None):
            print(f"{name}: what answers its claim is not measured yet")
            continue
        if claim.decoders is not None and bench is None:
            bench = Bench(given)
        found, met = quality(name, claim, rows, bench, given.samples)
        scale = table["scale"]
        if claim.speed:
            assert timed is not None
            factors = [c for c in timed["extra"]["claims"] if c["system"].startswith(name)]
            found["speed"] = {c["system"]: {k: v for k, v in c.items() if k != "system"} for c in factors}
            met = met and all(c["ours"] >= c["published"] for c in factors)
            scale += f". Speed: {timed['scale']}"
        print(
            record(
                name,
                found,
                scale=scale,
                verdict="reproduced" if met else "not reproduced",
                published=claim.published,
                recipes={side: rows[side]["fingerprint"] for side in (name, claim.rival)},
                extra={
                    **{k: table["extra"][k] for k in ("feature_network", "reference")},
                    "note": "one training run of each at a small fraction of the published sizes and budgets; the "
                    "margin is that of the draws, and does not hold the spread between training runs",
                },
            )
        )


if __name__ == "__main__":
    main()
