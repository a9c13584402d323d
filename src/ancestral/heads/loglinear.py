"""Several opinions about a site, pooled: the head of ensembles."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ancestral.heads.base import Finite, Head, needs_one_category
from ancestral.space import Space


class _Apart(Finite):
    """What members say on average while they learn: the mean of their own log-probabilities."""

    def log_probs(self) -> Tensor:
        return self.logits


class LogLinear(Head):
    """The normalised product of powers of the members' probabilities at every site (a logarithmic opinion pool).

    By default it is their geometric mean. Features are the members' log-probabilities, ``[B, S, M * K]``
    (:class:`ancestral.networks.Ensemble`). Every conditional is normalised, so their product is a distribution; the
    log-probability of the geometric mean is never below the members' mean (Heskes 1998, "Selecting weighting factors
    in logarithmic opinion pools"). While training, that mean itself is what is scored, so that the members learn apart
    from each other, as if each were alone.

    Args:
        powers: one for each member, in place of the mean; a negative one divides by what a member says.
    """

    def __init__(self, powers: Sequence[float] | None = None):
        super().__init__()
        self.powers = None if powers is None else tuple(float(p) for p in powers)

    def build(self, space: Space, width: int) -> LogLinear:
        needs_one_category(space)
        if width % space.largest:
            raise ValueError(f"features of size {width} are no log-probabilities of {space.largest} categories")
        self.members = width // space.largest
        if self.powers is not None and len(self.powers) != self.members:
            raise ValueError(f"{self.members} members need as many powers, not {len(self.powers)}")
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        each = features.unflatten(-1, (self.members, -1))
        if self.training:
            return _Apart(each.mean(-2))
        if self.powers is None:
            return Finite(each.mean(-2))
        powers = torch.tensor(self.powers, dtype=each.dtype, device=each.device)
        pooled = (each * powers[:, None]).sum(-2)
        # What some member rules out is out, even where its power is negative.
        return Finite(pooled.masked_fill(each.isneginf().any(-2), -torch.inf))
