"""Laws of the verbs: coding, saving, resuming, and independence of the batch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ancestral.decoding.decoders import Ancestral
from ancestral.errors import StreamError
from ancestral.laws.exam import (
    TOLERANCE,
    Exam,
    LawError,
    NotApplicable,
    log_probs,
    require,
)
from ancestral.model import Model


def coding(exam: Exam) -> None:
    """Items come back from their code to the bit, and the code is as long as their probability says."""
    if not exam.generator.head.finite:
        raise NotApplicable("the values are real numbers, which have no lossless code")
    from ancestral.coding import decode_values, encode_values, unpack

    generator, values = exam.generator, exam.items
    blob = encode_values(generator, values, batch_size=100)
    back, _ = decode_values(generator, blob)
    require(torch.equal(back, values), "decompressed values differ from those compressed")
    ideal = -float(log_probs(generator, values).sum()) / math.log(2)
    bits = unpack(blob).code_bits
    require(
        abs(bits - ideal) <= 0.01 * ideal + 64,
        f"the code has {bits} bits where -log2 p is {ideal:.1f}, more than 1 % + 64 off",
    )
    header = 8 * len(blob) - bits
    require(header <= 8 * 64, f"the header takes {header} bits, more than 64 bytes")
    for place in (len(blob) // 2, len(blob) - 6):
        damaged = bytearray(blob)
        damaged[place] ^= 4
        refused(lambda damaged=bytes(damaged): decode_values(generator, damaged), "a damaged stream")  # type: ignore[misc]
    weight = next(generator.parameters())
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.add_(0.01)
        try:
            refused(lambda: decode_values(generator, blob), "the stream of another model")
        finally:
            weight.copy_(kept)


def refused(decode: Callable[[], Any], what: str) -> None:
    try:
        decode()
    except StreamError:
        return
    raise LawError(f"{what} is decoded instead of refused")


def saving(exam: Exam) -> None:
    """A loaded model gives the same scores and the same samples."""
    model = exam.model
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        outside = exam.recipe.path if exam.recipe.modality == "outside" else None
        loaded = Model.load(Path(folder) / "model", outside)
    same = np.array_equal(model.log_prob(exam.dataset), loaded.log_prob(exam.dataset))
    require(same, "a loaded model gives other scores")
    require(
        torch.equal(drawn_values(model, 16), drawn_values(loaded, 16)),
        "a loaded model gives other samples for the same seed",
    )


def drawn_values(model: Model, n: int, first: int = 0, **options: Any) -> Tensor:
    return model.tokenizer.encode(model.sample(n, seed=3, first=first, as_dataset=True, **options))


class _Killed(Exception):
    pass


def resume(exam: Exam, steps: int = 5) -> None:
    """Training that is killed and goes on ends with the weights of training that was not, to the bit."""
    part = exam.dataset.take(slice(0, 40))  # three steps an epoch: both halves cross an end of the data

    def kill(row: Any, training: Any) -> None:
        if training.step == steps:
            raise _Killed

    settings = {"steps": 2 * steps, "batch_size": 16, "log_every": steps, "ema": 0.9}
    straight = exam.fit(part, **settings)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"checkpoint": str(Path(folder) / "run"), "save_every": steps}
        try:
            exam.fit(part, callbacks=[kill], **settings, **kept)
            raise LawError("training was not stopped by its callback, so that nothing was resumed")
        except _Killed:
            pass
        resumed = exam.fit(part, **settings, **kept)
    for name, weight in straight.generator.state_dict().items():
        require(torch.equal(weight, resumed.generator.state_dict()[name]), f"weight {name} differs after a resumed run")


def batches(exam: Exam) -> None:
    """Neither an item's score nor its sample depends on the items it is computed with."""
    model, few = exam.model, exam.dataset.take(slice(0, 12))
    together = np.asarray(model.log_prob(few))
    alone = np.concatenate([np.asarray(model.log_prob(few.take([i]))) for i in range(12)])
    off = float(np.abs(together - alone).max())
    require(off <= TOLERANCE, f"the score of an item differs by {off:.3g} nats in another batch")
    for decoder in (None,) if model.tokenizer.streaming else (None, Ancestral()):
        whole = drawn_values(model, 8, decoder=decoder)
        single = torch.cat([drawn_values(model, 1, first=i, decoder=decoder) for i in range(8)])
        name = type(decoder or model.decoder).__name__
        require(torch.equal(whole, single), f"an item drawn by {name} differs when it is drawn alone")
        pairs = drawn_values(model, 8, decoder=decoder, batch_size=3)
        require(torch.equal(whole, pairs), f"an item drawn by {name} differs in batches of another size")
