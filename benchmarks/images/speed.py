"""The speed that papers on parallel image generation claim, in seconds on this machine.

Run: python benchmarks/images/speed.py [--grid 16] [--batch 16]

Every system draws the same grid of codes of one tokenizer (next-scale prediction: a pyramid of maps of one with the
same encoder and decoder) with as many weights as the raster transformer, give or take a few per cent, and these are
random: what is measured is time, not quality. All have a cache where their papers do. Times are the best of several
rounds, in which the systems take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ancestral.decoding.decoders import Decoder, Request
from ancestral.evaluation.passes import counting
from ancestral.model import Model
from ancestral.networks.transformer import KeyValues
from ancestral.noise import Noise
from ancestral.recipes.registry import find
from ancestral.space import Condition
from ancestral.tokenizers.learned import VQ, Autoencoder, Convolutional, MultiScaleVQ
from record import record

SCALES = {8: (1, 2, 3, 4, 6, 8), 16: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)}
CODES = 1024


@dataclass
class System:
    """One way to draw the grid.

    Attributes:
        recipe: id.
        against: name of the system that its paper compares it with, and how many times faster the paper says it is.
        options: of the recipe.
        decoder: if not the recipe's own.
    """

    recipe: str
    against: tuple[str, float, str] | None = None
    options: dict[str, Any] | None = None
    decoder: Decoder | None = None


SYSTEMS = {
    "raster": System("llamagen"),
    "var": System("var", ("raster", 20.0, "seconds of one image")),
    "maskgit": System("maskgit", ("raster", 32.0, "passes; up to 64 for longer images"), {"passes": 8}),
    "par-4x": System("par", ("raster", 3.6, "seconds of one image"), {"regions": 2}),
    "par-16x": System("par", ("raster", 9.5, "seconds of one image"), {"regions": 4}),
    "randar": System("randar", ("raster", 2.5, "seconds of one image"), {"passes": 88}),
    "arpg": System("arpg", ("raster", 20.0, "images per second, in batches"), {"passes": 64}),
    "neighboring-ar": System("neighboring-ar", ("par-4x", 2.4, "images per second, in batches"), {}),
}


def images(side: int) -> np.ndarray:
    """Anything: colour images of two classes."""
    return np.random.default_rng(0).integers(0, 256, (32, side, side, 3), dtype=np.uint8)


def build(system: System, tokenizers: dict[str, Autoencoder], grid: int, width: int, depth: int) -> Model:
    """The system at this size, over the codes of the trained tokenizer that suits it."""
    size = {"width": width, "depth": depth, "heads": width // 64, "dropout": 0.0, **(system.options or {})}
    if system.recipe == "var":
        size |= {"scales": SCALES[grid], "codes": CODES}
    model = find(system.recipe)(**size)
    model.tokenizer = tokenizers["pyramid" if system.recipe == "var" else "grid"]
    return model.build()


def fitted(system: System, tokenizers: dict[str, Autoencoder], grid: int, width: int, depth: int) -> Model:
    """The system at the width and depth at which it has as many weights as the raster transformer."""
    count = build(SYSTEMS["raster"], tokenizers, grid, width, depth).parameters
    best: Model | None = None
    for w in (width, width - 64, width - 128):
        for d in range(max(2, depth - 3), depth + 2):
            made = build(system, tokenizers, grid, w, d)
            if best is None or abs(made.parameters - count) < abs(best.parameters - count):
                best = made
    assert best is not None
    return best


class Cached:
    """Counts the bytes of the keys and values that are kept, while it is in force."""

    def __init__(self) -> None:
        self.bytes = 0

    def __enter__(self) -> Cached:
        start = KeyValues.__init__

        def made(kept: KeyValues, like: torch.Tensor, capacity: int) -> None:
            start(kept, like, capacity)
            self.bytes += 2 * kept.k.numel() * kept.k.element_size()

        self._undo = start
        KeyValues.__init__ = made  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: Any) -> None:
        KeyValues.__init__ = self._undo  # type: ignore[method-assign]


@torch.no_grad()
def draw(model: Model, decoder: Decoder, n: int) -> float:
    """Seconds that ``n`` grids of codes take."""
    label = torch.arange(n) % 2
    began = time.perf_counter()
    decoder(model.generator, Request(Noise.of(0, n), Condition(label=label)))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grid", type=int, default=16, choices=sorted(SCALES), help="side of the grid of codes")
    parser.add_argument("--batch", type=int, default=16, help="images drawn together, beside one alone")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args()
    from ancestral.data import Images

    side = 4 * options.grid
    data = Images(images(side), labels=np.arange(32) % 2)
    tokenizers = {
        "grid": Autoencoder(VQ(CODES, width=8), Convolutional(32, (1, 2), patch=2), perceptual=0.0),
        "pyramid": Autoencoder(
            MultiScaleVQ(CODES, 8, SCALES[options.grid]), Convolutional(32, (1, 2), patch=2), perceptual=0.0
        ),
    }
    for tokenizer in tokenizers.values():
        tokenizer.fit(data, steps=1, quiet=True, validation=0)
    shared = tokenizers["grid"]
    models = {k: fitted(s, tokenizers, options.grid, options.width, options.depth) for k, s in SYSTEMS.items()}
    decoders = {k: SYSTEMS[k].decoder or model.decoder for k, model in models.items()}
    rows: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        with Cached() as cached, counting(model.generator.network) as passes:
            draw(model, decoders[name], 1)
        rows[name] = {
            "parameters": model.parameters,
            "codes": model.space.n,
            "passes": passes.network,
            "cache_mib_per_image": cached.bytes / 2**20,
        }
        print(name, rows[name], flush=True)
    for batch in (1, options.batch):
        for _ in range(options.rounds if batch == 1 else max(1, options.rounds - 1)):
            for name, model in models.items():
                key = f"seconds_per_image_batch_{batch}"
                rows[name][key] = min(rows[name].get(key, float("inf")), draw(model, decoders[name], batch) / batch)
    blank = torch.zeros(options.batch, shared.space.n, dtype=torch.int64)
    began = time.perf_counter()
    shared.decode(blank)
    decoding = (time.perf_counter() - began) / options.batch
    claims: dict[str, list[dict[str, Any]]] = {}
    for name, system in SYSTEMS.items():
        if system.against is None:
            continue
        other, factor, kind = system.against
        one, many = "seconds_per_image_batch_1", f"seconds_per_image_batch_{options.batch}"
        ratios = {key: rows[other][key] / rows[name][key] for key in ("passes", one, many)}
        judged = ratios["passes" if kind.startswith("passes") else one if kind.startswith("seconds") else many]
        claims.setdefault(system.recipe, []).append(
            {
                "system": name, "against": other, "published": factor, "of": kind, "ours": round(judged, 2),
                "fewer_passes": round(ratios["passes"], 2), "faster_one_image": round(ratios[one], 2),
                "faster_in_batches": round(ratios[many], 2),
            }
        )  # fmt: skip
        print(claims[system.recipe][-1], flush=True)
    rows = {name: {k: round(v, 4) for k, v in row.items()} for name, row in rows.items()}
    for name, row in rows.items():
        print(f"{name:16s}", row)
    if options.dry:
        return
    scale = (
        f"{options.grid} x {options.grid} codes of {CODES}, transformers of {rows['raster']['parameters'] / 1e6:.1f} M "
        f"random weights, float32, no guidance, one image and batches of {options.batch}; the tokenizer's decoder (the "
        f"same for all, {decoding:.4f} s an image) is left out"
    )
    every = [c for found in claims.values() for c in found]
    record(
        "images_speed",
        rows,
        published={c["system"]: f"{c['published']} times against {c['against']} ({c['of']})" for c in every},
        scale=scale,
        verdict="reproduced" if all(c["ours"] >= c["published"] for c in every) else "not reproduced",
        extra={"claims": every, "decoder_seconds_per_image": round(decoding, 4)},
    )
    # The claims that are about images as well are for claims.py; this one is about time and memory alone.
    (claim,) = claims["arpg"]
    saved = rows["raster"]["cache_mib_per_image"] / rows["arpg"]["cache_mib_per_image"]
    record(
        "arpg",
        {"factors": {**claim, "smaller_cache": round(saved, 2)}, **{n: rows[n] for n in ("arpg", "raster")}},
        published="20 times the images per second of raster models, in batches, with a quarter of the memory",
        scale=scale,
        verdict="reproduced" if claim["ours"] >= claim["published"] and saved >= 4 else "not reproduced",
    )


if __name__ == "__main__":
    main()
