"""How much of its codebook a vector quantiser uses: 1,024 codes, on MNIST and on CIFAR-10.

python benchmarks/images/codebook_usage.py --folder DATA --minutes 2

The codes are learned by moving averages, from the centres of k-means on, and a code that hardly stands for anything is
put where a vector of the batch is. Beside it the same without restarts and from a random start. Usage is counted on
test images, which no codebook has seen.
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
from image_data import TITLES, load  # noqa: E402

from ancestral.data import Images  # noqa: E402
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional  # noqa: E402
from record import record  # noqa: E402

GOAL = 0.97


class Plain(VQ):
    """Without what keeps codes alive: random start, no restarts."""

    def __init__(self, codes: int = 1024, width: int = 8) -> None:
        super().__init__(codes, width, restart=0.0)

    def initialise(self, latents: Any, seed: int) -> None:
        """Leave the codes where they are."""


def measure(quantiser: VQ, train: Images, test: Images, given: argparse.Namespace) -> dict[str, Any]:
    """Train an autoencoder around the quantiser and count its codes."""
    tokenizer = Autoencoder(quantiser, Convolutional(given.channels, (1, 2), patch=given.patch), perceptual=0.0)
    busy = time.process_time()
    with processor_clock():
        tokenizer.fit(train, minutes=given.minutes, validation=0, quiet=True, seed=given.seed)
    busy = time.process_time() - busy
    assert tokenizer.history is not None
    found = {f"{name}_on_test": value for name, value in tokenizer.report(test).items()}
    found["used_on_training"] = tokenizer.report(train.take(slice(0, given.train)))["used"]
    return {
        **found,
        "steps": tokenizer.history.steps,
        "processor_minutes": busy / 60,
        "codes_per_image": tokenizer.space.n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="folder with the data sets mnist and cifar10_png")
    parser.add_argument("--data", default="mnist,cifar10")
    parser.add_argument("--minutes", type=float, default=2.0, help="of processor time for every codebook")
    parser.add_argument("--codes", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--patch", type=int, default=2)
    parser.add_argument("--test", type=int, default=2000, help="test images to count on, at most")
    parser.add_argument("--train", type=int, default=3000, help="training images to count on, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    ours: dict[str, Any] = {}
    for name in given.data.split(","):
        train, test = load(name, given.folder)
        for title, kind in (("ours", VQ), ("plain", Plain)):
            row = measure(kind(given.codes, width=8), train, test.take(slice(0, given.test)), given)
            ours.setdefault(name, {})[title] = row
            print(name, title, json.dumps(row), flush=True)
    usage = {name: rows["ours"]["used_on_test"] for name, rows in ours.items()}
    scale = "; ".join(TITLES[name] for name in ours)
    print(
        record(
            "codebook_usage",
            {"usage": usage, "runs": ours},
            scale=f"{scale}; {given.codes} codes of {2 * given.patch} x {2 * given.patch} pixels, {given.minutes:g} "
            f"minutes of one core each, counted on at most {given.test:,} test images",
            verdict="reproduced" if min(usage.values()) >= GOAL else "not reproduced",
            published={"goal": f"at least {GOAL:.0%} of 1,024 codes in use on both"},
            extra={"plain": "the same codebook from a random start and without restarts"},
        )
    )


if __name__ == "__main__":
    main()
