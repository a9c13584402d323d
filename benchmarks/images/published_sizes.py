"""One 256 x 256 image by VAR-d16, LlamaGen-B and MAR-B at their published sizes, with random weights, on this machine.

Run: python benchmarks/images/published_sizes.py [--only var llamagen mar]

Random weights draw no picture, but take the time and memory that trained ones do. Every system runs in a process of its
own, whose peak memory is measured; the tokenizer's decoder is included in the time.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ancestral.decoding.decoders import Ancestral
from ancestral.decoding.parallel import RandomSets
from ancestral.evaluation.passes import counting
from ancestral.heads import Categorical, DiffusionHead
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.networks.scales import ScaleTransformer
from ancestral.networks.vision import MaskedAutoencoder
from ancestral.objectives import MaskedLikelihood
from ancestral.order import FixedOrder, Order, RandomMasks
from ancestral.tokenizers.learned import KL, VQ, Autoencoder, Convolutional, MultiScaleVQ, Quantiser
from record import record

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
PARAMETERS = {"var": 310e6, "llamagen": 111e6, "mar": 208e6}
GOAL_SECONDS = {"var": 60.0}


def tokenizer(quantiser: Quantiser, channels: int, **options: Any) -> Autoencoder:
    """The authors' autoencoder of 256 x 256 images, 16 pixels a code along each axis, with random weights."""
    backbone = Convolutional(channels, (1, 1, 2, 2, 4), blocks=2, patch=1, attention=True, **options)
    made = Autoencoder(quantiser, backbone)
    made.shape, made.classes = (256, 256, 3), tuple(map(str, range(1000)))
    made._build(0)
    made.fitted = True
    return made


def var() -> Model:
    """VAR-d16: width 1024, 16 layers, 16 heads, 4,096 codes of 32 numbers."""
    return Model(
        tokenizer(MultiScaleVQ(4096, 32, SCALES), 160, kernel=3),
        FixedOrder(lambda space: Order.scales(SCALES)),
        ScaleTransformer(1024, 16, 16, cosine=True),
        Categorical(per_site=False),
        decoder=Ancestral(ramp="sets"),
    )


def llamagen() -> Model:
    """LlamaGen-B: width 768, 12 layers, 12 heads, 16,384 codes of 8 numbers, 16 x 16 codes."""
    return Model(
        tokenizer(VQ(16384, 8), 128, between=256),
        "raster",
        CausalTransformer(768, 12, 12, targets=False, prefix=True, source=True, hidden=2048, eps=1e-5),
        Categorical(per_site=False),
    )


def mar() -> Model:
    """MAR-B: width 768, 12 + 12 layers, 64 class tokens, 64 sets, 100 steps of a head of 6 layers of 1,024."""
    return Model(
        tokenizer(KL(16), 128, attention_back=False),
        RandomMasks(64),
        MaskedAutoencoder(768, 12, 12, buffer=64),
        DiffusionHead(1024, 6, 100),
        objective=MaskedLikelihood("high", "mean"),
        decoder=RandomSets(64, ramp="after"),
    )


BUILD: dict[str, Callable[[], Model]] = {"var": var, "llamagen": llamagen, "mar": mar}
GUIDANCE = {"var": 1.5, "llamagen": 1.0, "mar": 1.9}
"""Scales as published, where 0 is none (LlamaGen's and MAR's own numbers are 1 more)."""


def weights(model: Model) -> int:
    """Weights of the transformer and head; the convolutions of VAR's tokenizer are not counted twice."""
    named = model.generator.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith("network.pyramids."))


def measure(name: str) -> dict[str, float]:
    """Build, draw one image without and with guidance, and tell seconds and memory."""
    model = BUILD[name]().build()
    found: dict[str, float] = {
        "parameters": weights(model),
        "tokenizer_parameters": sum(p.numel() for p in model.tokenizer._modules().parameters()),  # type: ignore[attr-defined]
    }
    for kind, scale in (("unguided", 0.0), ("guided", GUIDANCE[name])):
        began = time.perf_counter()
        with counting(model.generator.network) as passes:
            image = model.sample(1, label=7, guidance=scale, seed=1)
        found[f"{kind}_seconds"] = time.perf_counter() - began
        assert image.shape == (1, 256, 256, 3)
    found["passes"] = passes.network
    empty = model.space.empty()
    began = time.perf_counter()
    model.tokenizer.decode(empty.new_zeros(1, *empty.shape[1:]))
    found["decoder_seconds"] = time.perf_counter() - began
    found["peak_memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=sorted(BUILD), default=sorted(BUILD))
    parser.add_argument("--inside", choices=sorted(BUILD), help="measure this one in this process")
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options.inside)))
        return
    ours: dict[str, dict[str, float]] = {}
    for name in options.only:
        done = subprocess.run([sys.executable, __file__, "--inside", name], capture_output=True, text=True, check=True)
        ours[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, ours[name], flush=True)
    sizes = all(abs(found["parameters"] / PARAMETERS[name] - 1) < 0.01 for name, found in ours.items())
    fast = all(found["guided_seconds"] <= GOAL_SECONDS.get(name, float("inf")) for name, found in ours.items())
    if set(ours) != set(BUILD):
        return
    record(
        "images_published_sizes",
        {name: {k: round(v, 3) for k, v in found.items()} for name, found in ours.items()},
        published={"parameters": PARAMETERS, "goal": "VAR-d16 draws one image in at most 60 s on two cores or fewer"},
        scale="one 256 x 256 image, random weights, float32, the tokenizer's decoder included; guided as "
        f"published, two branches in one batch; threads of torch: {torch.get_num_threads()}",
        verdict="reproduced" if sizes and fast else "not reproduced",
    )


if __name__ == "__main__":
    main()
