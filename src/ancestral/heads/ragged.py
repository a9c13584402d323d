"""Categories whose number differs from site to site, without padding; counted tables for listed values."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.heads.base import Finite, Head, draw_categories, needs_one_category
from ancestral.noise import Noise
from ancestral.smooth import SmoothRows
from ancestral.space import Space

DIGIT_PRIORS = tuple(2.0**k for k in range(-6, 11))
"""Pseudo-counts per symbol among which the evidence chooses."""
UNFORESEEN = 1e-4
"""Pseudo-count of entries that no list has."""
_FEW = 256


@dataclass(frozen=True)
class Lookup:
    """How a counted site is drawn.

    Attributes:
        coarse, entry: the sites that it is looked up by.
        bins, entries: how many values these have.
        edges: float64 ``[bins + 1, K]``, cumulated probabilities given the coarse value; the last row is for an
            unknown one.
        spelled: int64 ``[bins * entries]``, the digit of every listed value, -1 where there is none; None for the
            entries themselves.
    """

    coarse: int
    entry: int
    bins: int
    entries: int
    edges: Tensor
    spelled: Tensor | None


class Ragged(Finite):
    """Lazy logits of several sites; scoring never pads them to the largest size."""

    def __init__(self, head: RaggedCategorical, features: Tensor, sites: Tensor):
        self._head, self._features, self._sites = head, features, sites
        self._logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:  # type: ignore[override]
        """``[B, S, K]`` with -inf beyond a site's size."""
        if self._logits is None:
            self._logits = self._head.padded(self._features, self._sites)
        return self._logits

    def log_prob(self, values: Tensor) -> Tensor:
        columns = zip(self._features.unbind(1), self._sites.tolist(), values.unbind(1))
        maps = self._head.maps()
        return torch.stack([self._head.site_log_prob(f, site, v, maps) for f, site, v in columns], 1)


class Narrow(Finite):
    """At most a few hundred categories, which single precision cumulates well enough."""

    def draw(self, noise: Noise) -> Tensor:
        return draw_categories(self.logits, noise, torch.float32)


class Counted(Finite):
    """Lazy logits ``[B, 1, K]`` of a counted site, which is scored and drawn by its table alone."""

    def __init__(self, head: RaggedCategorical, features: Tensor, site: int):
        self._head, self._features, self._site = head, features, site

    @cached_property
    def logits(self) -> Tensor:  # type: ignore[override]
        return self._head.site_logits(self._features, self._site)[:, None]

    def log_prob(self, values: Tensor) -> Tensor:
        return self._head.site_log_prob(self._features, self._site, values[:, 0])[:, None]

    def draw(self, noise: Noise) -> Tensor:
        return self._head.site_draw(self._features, self._site, noise.uniform(1)[:, 0])[:, None]


class RaggedCategorical(Head):
    """A linear map of exact size for every site.

    Sites of counted lexicons (:class:`ancestral.space.Lexicon`) have no map but counts of the training values
    given the coarse one: entries by absolute discounting, whose discount ``n1 / (n1 + 2 n2)`` goes to "not listed"
    (Ney, Essen and Kneser 1994, "On structuring probabilistic dependences in stochastic language modelling"); digits
    of unlisted values by Dirichlet smoothing of the distinct values' digits, its strength chosen by the evidence;
    those of a listed value are known. The network tells them the coarse value and the entry in the first two
    features, see :class:`ancestral.networks.columns.ColumnNetwork`.
    """

    def build(self, space: Space, width: int) -> RaggedCategorical:
        needs_one_category(space)
        self.space = space
        self._sizes = space.site_sizes().tolist()
        self._starts = [0, *itertools.accumulate(self._sizes)]
        self.weight = nn.Parameter(torch.randn(sum(self._sizes), width) * (0.3 / math.sqrt(width)))
        self.smooth = SmoothRows(space, self.weight, 0.3 / math.sqrt(width)) if space.ordered else None
        self.bias = nn.Parameter(torch.zeros(sum(self._sizes)))
        self._counted: dict[int, tuple[int, int]] = {}  # site -> its coarse and its entry site
        for lexicon in space.lexicons:
            if lexicon.counted:
                coarse = lexicon.sites[0]
                for place, site in enumerate(lexicon.sites[1:]):
                    self._counted[site] = (coarse, lexicon.sites[1])
                    table = torch.zeros(self._sizes[coarse] + 1, self._sizes[site]).log_softmax(-1)
                    self.register_buffer(f"table{site}", table)
                    if place:  # the digit of every listed value, -1 where training had none
                        slots = self._sizes[coarse] * self._sizes[lexicon.sites[1]]
                        self.register_buffer(f"spelled{site}", torch.full((slots,), -1))
        return self

    def prepare(self, values: Tensor, held: Tensor) -> None:
        """Start from the marginal distributions of ``values``, int ``[n, N]``, and count the listed ones.

        Listed values are counted in what is held out, too: the list has them all, and nothing is fitted to them.
        """
        start = 0
        with torch.no_grad():
            for site, size in enumerate(self._sizes):
                counts = torch.bincount(values[:, site].long(), minlength=size).float() + 0.1
                self.bias[start : start + size] = torch.log(counts / counts.sum()).to(self.bias.device)
                start += size
        for lexicon in self.space.lexicons:
            if lexicon.counted:
                self._count(torch.cat([values, held]), lexicon.sites)

    def _count(self, values: Tensor, sites: tuple[int, ...]) -> None:
        coarse, entry, *digits = sites
        bins, entries = self._sizes[coarse], self._sizes[entry]
        columns = {site: values[:, site].long() for site in sites}
        counts = torch.zeros(bins, entries, dtype=torch.float64)
        counts.view(-1).scatter_add_(
            0, columns[coarse] * entries + columns[entry], torch.ones(len(values), dtype=torch.float64)
        )
        once, twice = int((counts[:, :-1] == 1).sum()), int((counts[:, :-1] == 2).sum())
        discount = once / (once + 2 * twice) if once else 0.0
        table = (counts - discount * (counts > 0)).clamp(min=0)
        table[:, -1] = counts[:, -1] + discount * (counts[:, :-1] > 0).sum(1)
        # A coarse value that stands for itself has the one entry 0, which nobody need doubt.
        alone = (counts[:, 1:] == 0).all(1)
        table[alone, 1:] = 0
        table[alone, 0] = 1
        table = torch.cat([table, table.sum(0, keepdim=True)]) + UNFORESEEN
        self._set(f"table{entry}", table)
        together = torch.stack([columns[site] for site in sites], 1)
        distinct = torch.from_numpy(np.unique(together.cpu().numpy(), axis=0)).to(together.device)
        for site in digits:
            size, symbol = self._sizes[site], distinct[:, sites.index(site)]
            seen = torch.zeros(bins * size, dtype=torch.float64)
            seen.scatter_add_(0, distinct[:, 0] * size + symbol, torch.ones(len(distinct), dtype=torch.float64))
            seen = seen.view(bins, size)
            self._set(f"table{site}", torch.cat([seen, seen.sum(0, keepdim=True)]) + evidence_prior(seen))
            getattr(self, f"spelled{site}")[distinct[:, 0] * entries + distinct[:, 1]] = symbol

    def _set(self, name: str, weights: Tensor) -> None:
        getattr(self, name).copy_(torch.log(weights / weights.sum(-1, keepdim=True)))

    def maps(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Weights ``[K, D]`` and biases ``[K]`` of all sites, cut once rather than one by one."""
        weight = self.weight if self.smooth is None else self.weight + self.smooth()
        return weight.split(self._sizes), self.bias.split(self._sizes)

    def site_logits(self, features: Tensor, site: int, maps: tuple[tuple[Tensor, ...], ...] | None = None) -> Tensor:
        """Logits ``[B, K]`` of one site from features ``[B, D]``, with :meth:`maps` where the caller has them."""
        if site in self._counted:
            return self._lookup(features, site)
        if maps is None:
            rows = slice(self._starts[site], self._starts[site] + self._sizes[site])
            weight = self.weight[rows]
            if self.smooth is not None and site in self.smooth.place:
                weight = weight + self.smooth.rows(site)
            return F.linear(features, weight, self.bias[rows])
        return F.linear(features, maps[0][site], maps[1][site])

    def site_log_prob(
        self, features: Tensor, site: int, values: Tensor, maps: tuple[tuple[Tensor, ...], ...] | None = None
    ) -> Tensor:
        """Log-probabilities ``[B]`` of the ``values`` ``[B]`` of one site."""
        if site not in self._counted:
            return -F.cross_entropy(self.site_logits(features, site, maps), values, reduction="none")
        row, sure, digit = self._told(features, site)
        each = getattr(self, f"table{site}")[row, values]
        if sure is None or digit is None:
            return each
        return torch.where(sure, torch.where(digit == values, 0.0, float("-inf")), each)

    def site_draw(self, features: Tensor, site: int, u: Tensor) -> Tensor:
        """Values int64 ``[B]`` of a counted site where its cumulated table passes ``u``, float64 ``[B]`` in (0, 1)."""
        row, sure, digit = self._told(features, site)
        edges = self._edges(site)
        rows, size = edges.shape
        # The rows one behind the other, each from its number to the next, are searched as one.
        flat = (edges + torch.arange(rows, device=u.device)[:, None]).view(-1)
        found = torch.searchsorted(flat, row + u, right=True) - row * size
        found = found.clamp_(0, size - 1)
        return found if sure is None or digit is None else torch.where(sure, digit, found)

    def _edges(self, site: int) -> Tensor:
        edges = getattr(self, f"table{site}").exp().cumsum(-1, dtype=torch.float64)
        return edges / edges[:, -1:]  # type: ignore[no-any-return]

    def lookup(self, site: int) -> Lookup | None:
        """How a counted site is drawn; None for one that has a map."""
        if site not in self._counted:
            return None
        coarse, entry = self._counted[site]
        spelled = None if site == entry else getattr(self, f"spelled{site}")
        return Lookup(coarse, entry, self._sizes[coarse], self._sizes[entry], self._edges(site), spelled)

    def _told(self, features: Tensor, site: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Row of the site's table, and for digits where they are certain and which: each ``[B]``."""
        coarse, entry = self._counted[site]
        row = features[:, 0].round().long()
        row = torch.where(row < 0, self._sizes[coarse], row)
        if site == entry:
            return row, None, None
        entries = self._sizes[entry]
        listed = features[:, 1].round().long()
        sure = (row < self._sizes[coarse]) & (listed >= 0) & (listed < entries - 1)
        digit = getattr(self, f"spelled{site}")[torch.where(sure, row * entries + listed, 0)]
        return row, sure & (digit >= 0), digit

    def _lookup(self, features: Tensor, site: int) -> Tensor:
        row, sure, digit = self._told(features, site)
        logits = getattr(self, f"table{site}")[row]
        if sure is None or digit is None:
            return logits
        point = torch.full_like(logits, float("-inf")).scatter(1, digit.clamp(min=0)[:, None], 0.0)
        return torch.where(sure[:, None], point, logits)

    def padded(self, features: Tensor, sites: Tensor) -> Tensor:
        """Logits ``[B, S, K]`` of ``sites`` ``[S]`` or ``[B, S]``, K the largest size among them."""
        found = torch.unique(sites).tolist()
        most = max(self._sizes[site] for site in found)
        out = features.new_full((*features.shape[:2], most), float("-inf"))
        if sites.dim() == 1:
            for i, site in enumerate(sites.tolist()):
                out[:, i, : self._sizes[site]] = self.site_logits(features[:, i], site)
            return out
        for site in found:
            here = sites == site
            logits = self.site_logits(features[here], site)
            out[here] = F.pad(logits, (0, most - logits.shape[1]), value=float("-inf"))
        return out

    def forward(self, features: Tensor, sites: Tensor) -> Finite:
        if sites.dim() == 2:
            return Finite(self.padded(features, sites))
        if len(sites) == 1 and int(sites[0]) in self._counted:
            return Counted(self, features[:, 0], int(sites[0]))
        if len(sites) == 1:
            few = self._sizes[int(sites[0])] <= _FEW
            return (Narrow if few else Finite)(self.site_logits(features[:, 0], int(sites[0]))[:, None])
        return Ragged(self, features, sites)


def evidence_prior(counts: Tensor) -> float:
    """The pseudo-count per symbol under which rows of counts ``[M, K]`` are most probable (Dirichlet-multinomial)."""
    rows = counts[counts.sum(1) > 0]
    if len(rows) == 0:
        return 1.0
    best, most = 1.0, -math.inf
    for prior in DIGIT_PRIORS:
        total = prior * rows.shape[1]
        each = torch.lgamma(torch.tensor(total)) - torch.lgamma(rows.sum(1) + total)
        evidence = float(each.sum() + (torch.lgamma(rows + prior) - math.lgamma(prior)).sum())
        if evidence > most:
            best, most = prior, evidence
    return best
