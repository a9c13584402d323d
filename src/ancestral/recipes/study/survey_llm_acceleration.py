"""Three ways to draw a text faster: speculation, leaving the network early, and predicting masks in parallel."""

from __future__ import annotations

import time
from typing import Any

from ancestral.recipes.registry import Claim, study


@study(
    "survey-llm-acceleration",
    title="A Comprehensive Survey of Accelerated Generation Techniques in Large Language Models",
    paper="arXiv:2405.13019",
    authors="Khoshnoodi, Jain, Gao, Srikanth, Chadha (2024)",
    tiny=dict(width=16, depth=2, early=1, updates=4, length=6, prompts=2, draws=15, characters=30_000),
    claim=Claim(
        "speculative decoding keeps the distribution, early exit and non-autoregressive decoding trade quality for "
        "fewer layers or passes",
        "decoding/survey",
    ),
)
def survey_llm_acceleration(
    data: str = "",
    width: int = 96,
    depth: int = 6,
    early: int = 2,
    updates: int = 300,
    prompts: int = 6,
    length: int = 64,
    draws: int = 600,
    characters: int = 400_000,
) -> dict[str, Any]:
    """One byte model of English, and a masked one of the same size, drawn from in the ways of the survey's groups.

    Speculative decoding drafts with a small model or with the target's first layers. Early exit leaves the network
    after these layers where they are sure. Mask-predict draws all bytes at once and the doubtful ones again. What is
    drawn is judged by the autoregressive model.

    Reference:
        Khoshnoodi et al. A comprehensive survey of accelerated generation techniques in large language models. 2024,
        arXiv:2405.13019.

    Args:
        data: a text file; by default the text of Python's documentation.
        width, depth: of both models; the small one has one layer of half the width.
        early: layers of the early exit, which is trained along.
        updates: training steps of each model.
        prompts: texts that are gone on from, one after the other.
        length: symbols added to each, at most 64.
        draws: items of every chi-square test.
        characters: of the text that are used.

    Returns:
        ``ways``: by name the group, calls per symbol (for early exit also layers), CPU seconds, nats per symbol under
        the autoregressive model, whether the samples are meant to follow it, and the p-value of the test if so.
    """
    import torch

    from ancestral.decoding.decoders import Ancestral, Decoder, Request
    from ancestral.decoding.drafts import EarlyLayers, SmallModel
    from ancestral.decoding.exits import ConfidentExit
    from ancestral.decoding.speculative import Speculative
    from ancestral.decoding.unmasking import MaskPredict
    from ancestral.evaluation.decoders import follows, opinion, prompts_from, split_text, trial
    from ancestral.heads import Categorical
    from ancestral.model import Model
    from ancestral.networks import MaskedTransformer
    from ancestral.noise import Noise
    from ancestral.objectives import MaskedLikelihood
    from ancestral.order import RandomMasks
    from ancestral.recipes.registry import find
    from ancestral.tokenizers import Bytes

    text, held = (part[:characters] for part in split_text(data))
    size: dict[str, Any] = {"length": 128, "heads": 2, "dropout": 0.0}
    training: dict[str, Any] = {"steps": updates, "batch_size": 16, "validation": 0, "quiet": True}
    target = find("bild")(width=width, depth=depth, little=early, **size).fit([text], **training)
    small = find("gpt")(width=max(8, width // 2), depth=1, **size).fit([text], **training)
    window = 32 + length
    network = MaskedTransformer(width, depth, 2)
    objective = MaskedLikelihood("uniform", "bound", prefixes=0.5)
    masked = Model(Bytes(window), RandomMasks(), network, Categorical(per_site=False), objective=objective)
    masked.fit([text], lr=2e-3, **training)
    asked = prompts_from(held, prompts, 32)
    ways: dict[str, Any] = {}

    def autoregressive(name: str, group: str, decoder: Decoder, exact: bool, **options: Any) -> None:
        row = {"calls": 1.0} | trial(target, decoder, asked, length, **options) | {"group": group, "exact": exact}
        if exact and not options:
            row["p_value"] = follows(target, decoder, asked[0], draws)
        ways[name] = row

    autoregressive("sampling", "autoregressive", Ancestral(), True)
    autoregressive("greedy", "autoregressive", Ancestral(), True, temperature=0)
    autoregressive("small model drafts", "speculative", Speculative(SmallModel(small.generator)), True)
    autoregressive("first layers draft", "speculative", Speculative(EarlyLayers(early)), True)
    autoregressive(
        "small model drafts, greedy", "speculative", Speculative(SmallModel(small.generator)), True, temperature=0
    )
    for threshold in (0.5, 0.9):
        decoder = ConfidentExit((early,), threshold)
        autoregressive(f"exit at {threshold}", "early exit", decoder, False)
    shown = torch.stack([torch.tensor(list(p.encode("utf-8", "replace")[:32])) for p in asked])
    given = torch.cat([shown, torch.zeros(len(shown), length, dtype=torch.int64)], 1)
    for passes in (1, 4, 16):
        began, rows = time.process_time(), []
        for i, row in enumerate(given):
            request = Request(Noise.of(i, 1), given=row[None], known=torch.arange(window)[None] < 32)
            request.options = {"temperature": 0.0}
            rows.append(MaskPredict(passes)(masked.generator, request)[0])
        seconds = time.process_time() - began
        texts, known = [bytes(r.tolist()) for r in rows], [bytes(r.tolist()) for r in shown]
        ways[f"mask-predict, {passes} passes"] = {
            "calls": passes / length,
            "cpu_seconds": seconds,
            "nats_per_symbol": opinion(target, known, texts),
            "group": "non-autoregressive",
            "exact": False,
        }
    for row in ways.values():
        row.pop("texts", None)
    return {"bits_per_byte": target.log_prob([held[:4000]]).bits_per_dim(), "ways": ways}
