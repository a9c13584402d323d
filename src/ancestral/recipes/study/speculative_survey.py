"""Drafters times refiners: what each pair of speculative decoding saves, and what it leaves of the model."""

from __future__ import annotations

from typing import Any

from ancestral.recipes.registry import Claim, study


@study(
    "speculative-survey",
    title="Speculative Decoding and Beyond: An In-Depth Survey of Techniques",
    paper="arXiv:2502.19732",
    authors="Hu, Liu, Dong, Peng, et al. (2025)",
    tiny=dict(width=16, depth=2, early=1, updates=4, length=6, prompts=2, draws=15, characters=30_000),
    claim=Claim(
        "every drafter can stand before every refiner: exact ones keep the target's distribution, relaxed ones trade "
        "it for fewer passes",
        "decoding/survey",
    ),
)
def speculative_survey(
    data: str = "",
    width: int = 96,
    depth: int = 6,
    early: int = 1,
    updates: int = 300,
    prompts: int = 6,
    length: int = 64,
    ahead: int = 4,
    draws: int = 600,
    characters: int = 400_000,
) -> dict[str, Any]:
    """A byte model of English, drawn from by every drafter and refiner on one interface.

    Drafters: what followed the same symbols in the text so far (prompt lookup) or in the training text (retrieval), a
    small model, the target's own first layers, one draft or several judged together, and the target's guesses of its
    last pass (Jacobi iteration). Refiners: exact rejection sampling, greedy match (temperature 0), and relaxed ones:
    typical acceptance, and fallback and rollback. Heads trained to draft are not here.

    Reference:
        Hu et al. Speculative decoding and beyond: an in-depth survey of techniques. 2025, arXiv:2502.19732.

    Args:
        data: a text file; by default the text of Python's documentation.
        width, depth: of the target; the small model has one layer of half the width.
        early: layers of the early exit, which is trained along.
        updates: training steps of each model.
        prompts: texts that are gone on from, one after the other.
        length: symbols added to each.
        ahead: symbols drafted at a time.
        draws: items of every chi-square test.
        characters: of the text that are used.

    Returns:
        ``pairs``: by drafter and refiner the accepted length (symbols per call of the target), calls per symbol, CPU
        seconds, nats per symbol under the target, and for exact refiners the p-value of the test, or whether the texts
        are the greedy ones; ``plain``: the same without drafts.
    """
    import torch

    from ancestral.decoding.decoders import Ancestral, Decoder
    from ancestral.decoding.drafts import Draft, EarlyLayers, Lookup, SmallModel
    from ancestral.decoding.guesses import Jacobi, Retrieval
    from ancestral.decoding.relaxed import BigLittle, Typical
    from ancestral.decoding.speculative import Speculative
    from ancestral.evaluation.decoders import follows, prompts_from, split_text, trial
    from ancestral.recipes.registry import find

    text, held = (part[:characters] for part in split_text(data))
    size: dict[str, Any] = {"length": 128, "heads": 2, "dropout": 0.0}
    training: dict[str, Any] = {"steps": updates, "batch_size": 16, "validation": 0, "quiet": True}
    target = find("bild")(width=width, depth=depth, little=early, **size).fit([text], **training)
    small = find("gpt")(width=max(8, width // 2), depth=1, **size).fit([text], **training)
    asked = prompts_from(held, prompts, 40)
    known = torch.tensor(list(text.encode()))
    drafters: dict[str, tuple[Draft, int]] = {
        "prompt lookup": (Lookup(3), 1),
        "retrieval": (Retrieval(known), 1),
        "small model": (SmallModel(small.generator), 1),
        "early layers": (EarlyLayers(early), 1),
        "early layers, 3 candidates": (EarlyLayers(early), 3),
        "Jacobi iteration": (Jacobi(), 1),
    }
    plain = {"sampling": trial(target, Ancestral(), asked, length)}
    plain["greedy"] = trial(target, Ancestral(), asked, length, temperature=0)
    greedy = plain["greedy"]["texts"]
    pairs: dict[str, Any] = {}
    for name, (draft, candidates) in drafters.items():
        refiners: dict[str, tuple[Decoder, dict[str, Any]]] = {
            "exact rejection": (Speculative(draft, ahead, candidates), {}),
            "greedy match": (Speculative(draft, ahead, candidates), {"temperature": 0.0}),
            "typical acceptance": (Speculative(draft, ahead, candidates, relax=Typical()), {}),
        }
        if name in ("small model", "early layers"):
            refiners["fallback and rollback"] = BigLittle(draft), {}
        for refiner, (decoder, options) in refiners.items():
            row = trial(target, decoder, asked, length, **options) | {"drafter": name, "refiner": refiner}
            if refiner == "exact rejection":
                row["p_value"] = follows(target, decoder, asked[0], draws)
            if refiner == "greedy match":
                row["equals_greedy"] = row["texts"] == greedy
            pairs[f"{name} / {refiner}"] = row
    for row in (*pairs.values(), *plain.values()):
        row.pop("texts")
    return {"bits_per_byte": target.log_prob([held[:4000]]).bits_per_dim(), "plain": plain, "pairs": pairs}
