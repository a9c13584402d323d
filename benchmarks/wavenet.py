"""WaveNet's claim on spoken digits: bits per sample beside a recurrent network and undilated convolutions.

    python benchmarks/wavenet.py --data FOLDER_OF_WAV_FILES --steps 300

The clips are those of the Free Spoken Digit Dataset, 8 kHz, named ``digit_speaker_take.wav``: take 0 is the test set,
the others train. All networks have about the same number of weights, windows, batches and updates.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from ancestral.data import Audio
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import GatedConvolution, Network, Recurrent
from ancestral.order import Order
from ancestral.recipes.registry import catalogue
from ancestral.tokenizers import MuLaw
from record import record

WINDOW = 1024


def clips(folder: Path) -> tuple[Audio, Audio]:
    """Training and test clips."""
    files = sorted(folder.glob("*_*_*.wav"))
    parts = [[p for p in files if (p.stem.split("_")[2] == "0") == test] for test in (False, True)]
    train, test = (Audio.read_files([p.read_bytes() for p in part]) for part in parts)
    return train, test


def plain(network: Network, **training: Any) -> Model:
    """A network in the place of WaveNet's, everything else being equal."""
    return Model(
        MuLaw(256, WINDOW, True), "raster", network, Categorical(per_site=False),
        training=dict(lr=2e-3, batch_size=16) | training,
    )  # fmt: skip


def fitting_width(count: int, train: Audio, make: Any) -> Model:
    """The model whose number of weights is nearest to ``count``, over multiples of 8."""
    models = [make(width).build(train) for width in range(32, 257, 8)]
    return min(models, key=lambda model: abs(model.parameters - count))


def generation(model: Model) -> dict[str, float]:
    """Seconds per sample from queues, and by recomputing the whole window."""
    began = time.perf_counter()
    model.sample(1, seed=0, length=400)
    queues = (time.perf_counter() - began) / 400
    generator = model.generator.eval()
    values, order = torch.zeros(1, WINDOW, dtype=torch.int64), Order.raster(WINDOW)
    with torch.no_grad():
        generator.log_prob(values, order)
        began = time.perf_counter()
        for _ in range(10):
            generator.log_prob(values, order)
    return {"from_queues_s": queues, "recomputed_s": (time.perf_counter() - began) / 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--width", type=int, default=32)
    given = parser.parse_args()
    train, test = clips(given.data)
    wavenet = catalogue()["wavenet"](width=given.width, cycles=2, layers=9, length=WINDOW)
    wavenet.build(train)
    models = {
        "wavenet": wavenet,
        "undilated": plain(GatedConvolution(given.width, 18, 1, 2, targets=False)).build(train),
        "gated recurrent units": fitting_width(
            wavenet.parameters, train, lambda width: plain(Recurrent(width, 2, targets=False))
        ),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, model in models.items():
        began = time.perf_counter()
        model.fit(train, steps=given.steps, validation=0.1, seed=0, quiet=True)
        seconds = time.perf_counter() - began
        scores = model.log_prob(test)
        found[name] = {
            "bits_per_sample": scores.bits_per_dim(),
            "parameters": model.parameters,
            "training_s": round(seconds, 1),
        }
        print(name, found[name], flush=True)
    speed = generation(models["wavenet"])
    bits = {name: row["bits_per_sample"] for name, row in found.items()}
    met = bits["wavenet"] < min(bits["undilated"], bits["gated recurrent units"])
    faster = speed["recomputed_s"] / speed["from_queues_s"]
    record(
        "wavenet",
        found["wavenet"] | speed | {"queues_are_faster": faster},
        {name: row for name, row in found.items() if name != "wavenet"},
        scale=f"{len(train)} training and {len(test)} test clips of spoken digits, 8 kHz, 16 bits as 256 mu-law "
        f"symbols and uniform rests; windows of {WINDOW} samples, {given.steps} updates of 16",
        verdict="reproduced" if met and faster > 1 else "not reproduced",
        published="more natural speech than parametric and concatenative systems (listeners' ratings)",
        extra={"note": "one short run of each; naturalness is not measured"},
    )
    print(speed, faster)


if __name__ == "__main__":
    main()
