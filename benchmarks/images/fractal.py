"""A fractal of transformers beside a flat one over the same pixels of MNIST: likelihood and cost.

python benchmarks/images/fractal.py --folder DATA --minutes 6

Both predict pixel by pixel, exactly; the flat one is the raster transformer of the recipe rar without random orders,
with about as many weights. Digits are 16 x 16 pixels, so that the flat one takes hundreds of steps in minutes of one
core. The two are compared after equal processor time, and after equal steps (the fractal is stopped at the flat one's).
What a step costs is measured at 28 x 28 as well.
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
from image_data import load, reduced  # noqa: E402

from ancestral.data import Images, read  # noqa: E402
from ancestral.evaluation.images import draw  # noqa: E402
from ancestral.model import Model  # noqa: E402
from ancestral.recipes.registry import find  # noqa: E402
from record import record  # noqa: E402

SYSTEMS: dict[str, tuple[str, dict[str, Any]]] = {
    "fractal": ("fractalgen", {"widths": (128, 64, 32), "depths": (4, 2, 1)}),
    "flat": ("rar", {"anneal": (0.0, 0.0), "width": 144, "depth": 5}),
}
ENOUGH = 100
"""Steps that the flat model has to take before likelihoods are compared."""
BATCH = 32


def trained(name: str, train: Images, seed: int, **budget: Any) -> tuple[Model, float]:
    """A system after its budget, and the processor seconds of its training."""
    recipe, options = SYSTEMS[name]
    model = find(recipe)(**options)
    busy = time.process_time()
    with processor_clock():
        model.fit(train, validation=0, quiet=True, seed=seed, batch_size=BATCH, **budget)
    return model, time.process_time() - busy


def step_cost(name: str, train: Images, steps: int = 2) -> float:
    """Processor seconds of a training step on these images, without what comes before the first."""
    few, many = (trained(name, train, 0, steps=count)[1] for count in (1, 1 + steps))
    return (many - few) / steps


def measured(model: Model, busy: float, test: Images, samples: int) -> dict[str, Any]:
    """Likelihood of the test images, and the work of training and of drawing."""
    assert model.history is not None
    score = model.log_prob(test)
    drawn = draw(model, samples, seed=0)
    return {
        "parameters": model.parameters,
        "steps": model.history.steps,
        "processor_minutes": busy / 60,
        "bits_per_pixel_on_test": float(score.bits_per_dim()),
        "kind": score.kind,
        "processor_seconds_per_image_drawn": drawn.processor,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data set mnist")
    parser.add_argument("--minutes", type=float, default=6.0, help="of processor time for each")
    parser.add_argument("--test", type=int, default=500, help="test images that are scored")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = (reduced(part, 2) for part in load("mnist", given.folder))
    test = test.take(slice(0, given.test))
    whole = read(given.folder / "mnist" / "train.npz", "images")
    assert isinstance(whole, Images)
    cost = {name: step_cost(name, whole) for name in SYSTEMS}
    ours: dict[str, Any] = {"processor_seconds_of_a_step_at_28_x_28": cost}
    print(json.dumps(ours), flush=True)
    for name in ("flat", "fractal"):
        ours[name] = measured(*trained(name, train, given.seed, minutes=given.minutes), test, given.samples)
        print(name, json.dumps(ours[name]), flush=True)
    steps = ours["flat"]["steps"]
    ours["fractal_after_as_many_steps"] = measured(
        *trained("fractal", train, given.seed, steps=steps), test, given.samples
    )
    bits = {name: found["bits_per_pixel_on_test"] for name, found in ours.items() if "steps" in found}
    ours["steps_in_the_same_time"] = ours["fractal"]["steps"] / steps
    ours["steps_in_the_same_time_at_28_x_28"] = cost["flat"] / cost["fractal"]
    better = bits["fractal"] < bits["flat"] and ours["steps_in_the_same_time"] > 1
    print(
        record(
            "fractalgen",
            ours,
            published="more levels give a better likelihood at a lower cost (ImageNet, 64 x 64, unconditional)",
            scale=f"MNIST ({len(train):,} of 60,000 training images), 16 x 16 grey levels, {BATCH} images a step; "
            f"{given.minutes:g} minutes of one core each; {len(test)} test images",
            verdict="not tested" if steps < ENOUGH else "reproduced" if better else "not reproduced",
            extra={
                "criterion": "after the same processor time the fractal has fewer bits per pixel of test images, and a "
                f"step costs it less; not tested if the flat model took fewer than {ENOUGH} steps"
            },
        )
    )


if __name__ == "__main__":
    main()
