"""A language of wavelet bit planes beside one of pixels: what a prefix holds, and what is drawn after equal steps.

python benchmarks/images/wavelet.py --folder DATA --minutes 6

MNIST at 8 x 8. Both transformers have the same depth, about as many weights and as many steps, and are told the class.
An independent classifier says how often the class asked for is drawn, and another network's features give the Frechet
distance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clock import processor_clock  # noqa: E402
from image_data import enlarged, load, reduced  # noqa: E402
from judge import judge  # noqa: E402

from ancestral.data import Images  # noqa: E402
from ancestral.evaluation.features import class_accuracy, feature_network  # noqa: E402
from ancestral.evaluation.images import draw, figures  # noqa: E402
from ancestral.recipes.registry import find  # noqa: E402
from ancestral.tokenizers.wavelets import WaveletPlanes  # noqa: E402
from record import record  # noqa: E402

GOAL = 0.9
"""Share of drawn digits that have to be the ones asked for: the goal of the table of equal budgets."""
SMALLER = 4
LEVELS = 2
BATCH = 32


def prefixes(train: Images, test: Images) -> list[dict[str, float]]:
    """Tokens and the error of the images that they make, for every number of planes."""
    found: list[dict[str, float]] = []
    top = WaveletPlanes(LEVELS, None).fit(train).top
    for planes in range(1, top + 1):
        tokenizer = WaveletPlanes(LEVELS, planes).fit(train)
        back = tokenizer.decode(tokenizer.encode(test))
        error = float(np.square(back.pixels.astype(np.float64) - test.pixels).mean())
        entry = {"planes": planes, "tokens": tokenizer.space.n, "mean_squared_error": error}
        found.append(entry | ({"psnr_db": float(10 * np.log10(255**2 / error))} if error else {}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data set mnist")
    parser.add_argument("--minutes", type=float, default=8.0, help="of processor time for the wavelets' model")
    parser.add_argument("--planes", type=int, default=3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--pixel-width", type=int, default=128, help="that of the pixels' model, for as many weights")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--guidance", default="0,1.5")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, test = (reduced(part, SMALLER) for part in load("mnist", given.folder))
    shown, held = enlarged(train, SMALLER), enlarged(test, SMALLER)
    source = f"MNIST, {train.pixels.shape[1]} x {train.pixels.shape[2]}, training part"
    network = feature_network("label-classifier", shown, source=source, epochs=3)
    with tempfile.TemporaryDirectory() as kept:
        independent = judge(shown, Path(kept))
    codes = prefixes(train, test)
    labels = np.arange(given.samples) % len(train.classes)
    ours: dict[str, Any] = {"prefixes": codes, "judge_accuracy_on_test": class_accuracy(independent, held)}
    coarse = WaveletPlanes(LEVELS, given.planes).fit(train)
    planes = enlarged(coarse.decode(coarse.encode(test)), SMALLER)
    ours["judge_accuracy_on_the_planes_of_test"] = class_accuracy(independent, planes, test.labels)
    budget: dict[str, Any] = {"minutes": given.minutes}
    systems: dict[str, tuple[str, dict[str, Any]]] = {
        "wavelets": ("wavelet-ar", {"levels": LEVELS, "planes": given.planes, "width": given.width}),
        "pixels": ("rar", {"anneal": (0.0, 0.0), "width": given.pixel_width}),
    }
    for name, (recipe, options) in systems.items():
        model = find(recipe)(depth=given.depth, **options)
        busy = time.process_time()
        with processor_clock():
            model.fit(train, validation=0, quiet=True, seed=given.seed, batch_size=BATCH, **budget)
        assert model.history is not None
        ours[name] = {
            "recipe": recipe,
            "tokens": model.space.n,
            "parameters": model.parameters,
            "steps": model.history.steps,
            "processor_minutes": (time.process_time() - busy) / 60,
            "draws": {},
        }
        budget = {"steps": model.history.steps}
        for guidance in map(float, given.guidance.split(",")):
            drawn = draw(model, given.samples, labels, seed=given.seed, guidance=guidance)
            large = enlarged(drawn.images, SMALLER)
            measured = figures(network, held, large, reference="MNIST test", seed=given.seed)
            ours[name]["draws"][f"{guidance:g}"] = {
                "class_accuracy": class_accuracy(independent, large, labels),
                **{key: measured[key].value for key in ("frechet", "precision", "recall", "inception_score")},
                "processor_seconds_per_image": drawn.processor,
            }
        print(name, json.dumps(ours[name]), flush=True)
    errors = [entry["mean_squared_error"] for entry in codes]
    rising, whole = all(b < a for a, b in itertools.pairwise(errors)), errors[-1] == 0
    best = {name: max(d["class_accuracy"] for d in ours[name]["draws"].values()) for name in ("wavelets", "pixels")}
    ours["class_accuracy"] = best
    print(
        record(
            "wavelet-ar",
            ours,
            published="significant bits first make an order that a transformer learns; class-conditional generation "
            "is shown (MNIST, Fashion-MNIST and others)",
            scale=f"{source} ({len(train):,} images), {LEVELS} levels, {given.planes} planes; width {given.width} "
            f"({given.pixel_width} for pixels), depth {given.depth}, {BATCH} images a step; {given.minutes:g} minutes "
            f"of one core for the wavelets' model, as many steps for the pixels'; {given.samples:,} class-conditional "
            f"samples against {len(test):,} test images",
            verdict="reproduced" if rising and whole and best["wavelets"] >= GOAL else "not reproduced",
            extra={
                "feature_network": network.title,
                "criterion": "all planes give the images back to the bit, the error falls with every plane of the "
                f"prefix, and at least {GOAL:.0%} of the class-conditional samples show the class asked for to an "
                "independent classifier; the model of pixels is for comparison",
            },
        )
    )


if __name__ == "__main__":
    main()
