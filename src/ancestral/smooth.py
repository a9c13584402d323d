"""Weights of ordered symbols that change little from a symbol to the next."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestral.space import Space


class SmoothRows(nn.Module):
    """Rows to add to a table with one row per symbol of every site.

    The symbols of a number's site are bins or digits in ascending order. A table alone has to learn from the data
    that neighbours are alike; a learned linear map of few smooth functions (:meth:`ancestral.space.Space.waves`)
    knows it, and the table is left to tell what is particular to a symbol.

    Args:
        space: sites and values, some of them ordered.
        table: float ``[R, D]``, R the sizes of all sites added up. What it starts from is made small at ordered sites.
        std: standard deviation of the added rows at the start.
        waves: smooth functions per site.
        rest: what is left of the table's start at ordered sites.
    """

    def __init__(self, space: Space, table: Tensor, std: float, waves: int = 8, rest: float = 0.1):
        super().__init__()
        self.place = {site: i for i, site in enumerate(space.ordered)}
        self._sizes = space.site_sizes().tolist()
        self.map = nn.Parameter(torch.randn(len(self.place), waves, table.shape[1]) * std)
        for i, wave in enumerate(space.waves(waves)):
            self.register_buffer(f"wave{i}", wave, persistent=False)
        with torch.no_grad():
            for site, own in enumerate(table.split(self._sizes)):
                if site in self.place:
                    own.mul_(rest)

    def rows(self, site: int) -> Tensor:
        """Rows ``[K, D]`` of an ordered site."""
        i = self.place[site]
        wave: Tensor = getattr(self, f"wave{i}")
        return wave @ self.map[i]

    def forward(self) -> Tensor:
        """All rows ``[R, D]``, zero where symbols have no order."""
        width = self.map.shape[-1]
        each = (self.rows(k) if k in self.place else self.map.new_zeros(n, width) for k, n in enumerate(self._sizes))
        return torch.cat(list(each))
