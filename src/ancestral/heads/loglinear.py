"""Several opinions about a site, pooled: the head of ensembles."""

from __future__ import annotations

from torch import Tensor

from ancestral.heads.base import Finite, Head, needs_one_category
from ancestral.space import Space


class _Apart(Finite):
    """What members say on average while they learn: the mean of their own log-probabilities."""

    def log_probs(self) -> Tensor:
        return self.logits


class LogLinear(Head):
    """The normalised geometric mean of the members' probabilities at every site (a logarithmic opinion pool).

    Features are the members' log-probabilities, ``[B, S, M * K]`` (:class:`ancestral.networks.Ensemble`). Every
    conditional is normalised, so their product is a distribution; its log-probability is never below the members'
    mean (Heskes 1998, "Selecting weighting factors in logarithmic opinion pools"). While training, that mean itself is
    what is scored, so that the members learn apart from each other, as if each were alone.
    """

    def build(self, space: Space, width: int) -> LogLinear:
        needs_one_category(space)
        if width % space.largest:
            raise ValueError(f"features of size {width} are no log-probabilities of {space.largest} categories")
        self.members = width // space.largest
        return self

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        pooled = features.unflatten(-1, (self.members, -1)).mean(-2)
        return _Apart(pooled) if self.training else Finite(pooled)
