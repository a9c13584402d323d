"""What a training run is told: budget, optimiser, schedule, what to keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ancestral.errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of :func:`ancestral.training.train`.

    The budget is whichever of ``steps``, ``epochs`` and ``minutes`` ends first; warm-up and annealing follow
    the fraction of it that is used, so a budget in minutes anneals to the end as well.
    """

    steps: int | None = None
    """Budget in optimiser steps."""
    minutes: float | None = None
    """Budget in minutes of wall time, evaluations included, over all sittings of a resumed run."""
    epochs: float | None = None
    """Budget in passes over the items."""
    min_steps: int | None = None
    """The least steps that ``epochs`` stand for, so that few items are passed over often enough; None: any number."""
    batch_size: int = 64
    """Items per step, over all processes together."""
    accumulate: int = 1
    """Parts in which each process works through its share of a batch, to save memory. A model's ``fit`` takes as many
    as its items are large (:func:`ancestral.training.memory.parts`), unless told."""
    lr: float = 1e-3
    """Peak learning rate of AdamW (Loshchilov and Hutter, 2017, arXiv:1711.05101)."""
    weight_decay: float = 0.05
    """Decoupled decay of matrices; biases, norms and embeddings are left alone."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's averaging of gradients and of their squares."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after warm-up: half a cosine down to ``lr_floor``, or constant."""
    lr_floor: float = 0.0
    """End of the cosine as a fraction of ``lr``."""
    warmup: float = 0.03
    """Fraction of the budget in which the learning rate rises from zero."""
    ema: float | None = 0.999
    """Decay of the moving average of the weights, which is what is evaluated and kept; None: none."""
    clip: float | None = 1.0
    """Largest Euclidean norm of the gradient; None: no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic inside the loss; weights and optimiser stay float32."""
    patience: int | None = None
    """Stop after this many evaluations in a row without a better validation loss; None: never."""
    eval_every: int | None = None
    """Steps between evaluations; None: each twentieth of the budget."""
    eval_items: int | None = None
    """Evaluate on at most this many validation items (the first ones); None: all."""
    seed: int = 0
    """Determines the order of the items and all randomness of the loss."""
    checkpoint: Path | str | None = None
    """Folder of checkpoints; a run that finds some there goes on from the newest; None: keep none."""
    save_every: int | None = None
    """Steps between checkpoints; None: every ``save_minutes``."""
    save_minutes: float = 10.0
    """Minutes between checkpoints when ``save_every`` is None."""
    keep: int = 2
    """Checkpoints kept; older ones are removed."""
    log: Path | str | None = None
    """JSON-lines file of the metrics; None: none."""
    log_every: int = 10
    """Steps between lines of metrics."""
    quiet: bool = False
    """No progress bar, even on a terminal."""

    def __post_init__(self) -> None:
        positive = (
            "steps minutes epochs min_steps batch_size accumulate lr clip patience eval_every eval_items save_every"
        )
        for name in (*positive.split(), "keep", "log_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name}={value} must be more than zero")
        below_one = math.nextafter(1.0, 0.0)
        for label, fraction, most in (
            ("ema", self.ema, below_one),
            ("warmup", self.warmup, below_one),
            ("lr_floor", self.lr_floor, 1.0),
            ("betas[0]", self.betas[0], below_one),
            ("betas[1]", self.betas[1], below_one),
        ):
            if fraction is not None and not 0 <= fraction <= most:
                raise TrainingError(f"{label}={fraction} must be a fraction, from 0 to {most:.0f}")
        if not self.weight_decay >= 0 or not self.save_minutes >= 0:
            raise TrainingError("weight_decay and save_minutes must not be negative")
        for name, choices in (("schedule", ("cosine", "constant")), ("precision", ("float32", "bfloat16"))):
            if getattr(self, name) not in choices:
                raise TrainingError(f"{name}={getattr(self, name)!r} is unknown; choose one of {', '.join(choices)}")
        if self.steps is None and self.minutes is None and self.epochs is None:
            raise TrainingError("training needs a budget: give steps=, minutes= or epochs=")

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress``, the fraction of the budget used, in [0, 1]."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        if self.schedule == "constant":
            return self.lr
        after = min((progress - self.warmup) / (1 - self.warmup), 1.0)
        return self.lr * (self.lr_floor + (1 - self.lr_floor) * 0.5 * (1 + math.cos(math.pi * after)))

    def total_steps(self, items: int) -> int | None:
        """Steps of the budget for a source of ``items``, or None when only the clock limits it."""
        limits = [] if self.steps is None else [self.steps]
        if self.epochs is not None:
            passes = math.ceil(self.epochs * items / min(self.batch_size, items))
            limits.append(max(passes, self.min_steps or 0))
        return min(limits) if limits else None
