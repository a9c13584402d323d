"""A fractal of transformers beside a flat one over the same pixels, trained for the same processor time on MNIST.

python benchmarks/images/fractal.py --folder DATA --minutes 1.5

Both predict pixel by pixel, exactly; the flat one is the raster transformer of the recipe rar without random orders.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clock import processor_clock  # noqa: E402

from ancestral.data import read  # noqa: E402
from ancestral.recipes.registry import find  # noqa: E402
from record import record  # noqa: E402

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "fractal": ("fractalgen", {}),
    "flat": ("rar", {"anneal": (0.0, 0.0), "width": 128, "depth": 4}),
}


ENOUGH = 100
"""Steps that the flat model has to take before likelihoods are compared."""
NOTE = "costs compare; likelihoods only where the flat model took at least 100 steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data set mnist")
    parser.add_argument("--minutes", type=float, default=1.5, help="of processor time for each")
    parser.add_argument("--test", type=int, default=300, help="test images that are scored")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = (read(given.folder / "mnist" / f"{part}.npz", "images") for part in ("train", "test"))
    test = test.take(slice(0, given.test))
    ours: dict[str, dict[str, Any]] = {}
    for name, (recipe, options) in SYSTEMS.items():
        model = find(recipe)(**options)
        busy = time.process_time()
        with processor_clock():
            model.fit(train, minutes=given.minutes, validation=0, quiet=True, seed=given.seed)
        busy = time.process_time() - busy
        assert model.history is not None
        items = model.history.steps * model.training["batch_size"]
        score = model.log_prob(test)
        ours[name] = {
            "recipe": recipe,
            "parameters": model.parameters,
            "steps": model.history.steps,
            "images_per_processor_second": items / busy,
            "bits_per_pixel_on_test": float(score.bits_per_dim()),
            "kind": score.kind,
        }
        print(name, json.dumps(ours[name]), flush=True)
    cheaper = ours["fractal"]["images_per_processor_second"] / ours["flat"]["images_per_processor_second"]
    enough = ours["flat"]["steps"] >= ENOUGH
    better = ours["fractal"]["bits_per_pixel_on_test"] < ours["flat"]["bits_per_pixel_on_test"]
    print(
        record(
            "fractalgen",
            {**ours, "images_in_the_same_time": cheaper},
            published="more levels give a better likelihood at a lower cost (ImageNet, 64 x 64, unconditional)",
            scale=f"MNIST (20,000 of 60,000 training images), 28 x 28 grey levels; {given.minutes:g} minutes of one "
            f"core each; {len(test)} test images",
            verdict="not tested" if not enough else "reproduced" if better and cheaper > 1 else "not reproduced",
            extra={"note": NOTE},
        )
    )


if __name__ == "__main__":
    main()
