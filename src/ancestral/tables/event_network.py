"""Rows given all rows before, and each row's symbols given those before: a recurrent network over rows, nested."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SiteByList(nn.Module):
    """Categories at a short list of sites, each given those before it and a vector.

    The sites share hidden units whose input grows by one embedding from site to site (NADE: Larochelle and Murray
    2011), followed by a residual layer.

    Args:
        sizes: categories at every site.
        told: size of the vector; 0 for none.
        width: hidden units.
    """

    def __init__(self, sizes: Sequence[int], told: int, width: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        offsets = torch.tensor([0, *self.sizes]).cumsum(0)[:-1]
        self.offsets: Tensor
        self.register_buffer("offsets", offsets, persistent=False)
        self.embed = nn.Embedding(sum(self.sizes), width)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.start = nn.Parameter(torch.zeros(len(self.sizes), width))
        nn.init.normal_(self.start, std=0.3)
        self.told = nn.Linear(told, width, bias=False) if told else None
        self.mix = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.ModuleList(nn.Linear(width, size) for size in self.sizes)

    def embedded(self, values: Tensor) -> Tensor:
        """Embeddings ``[..., S, width]`` of values int64 ``[..., S]``."""
        return self.embed(values + self.offsets)

    def hidden(self, values: Tensor, told: Tensor | None) -> Tensor:
        """Features ``[..., S, width]``; those of site s see the values before s only."""
        each = self.embedded(values)
        x = self.start + each.cumsum(-2) - each
        if self.told is not None and told is not None:
            x = x + self.told(told)[..., None, :]
        return self.norm(x + self.mix(x))

    def log_prob(self, values: Tensor, told: Tensor | None = None) -> Tensor:
        """Log-probability of every site's value, ``[..., S]``."""
        features = self.hidden(values, told)
        terms = [
            -F.cross_entropy(out(features[..., s, :]).flatten(0, -2), values[..., s].flatten(), reduction="none")
            for s, out in enumerate(self.out)
        ]
        return torch.stack(terms, -1).reshape(values.shape)

    def draw(self, site: int, values: Tensor, told: Tensor | None, uniform: Tensor) -> Tensor:
        """Values int64 ``[B]`` of a site, by inverting its distribution at ``uniform`` float64 ``[B]``."""
        logits = self.out[site](self.hidden(values, told)[..., site, :]).double()
        edges = torch.softmax(logits, -1).cumsum(-1)
        found = torch.searchsorted(edges, (uniform * edges[:, -1])[:, None], right=True)[:, 0]
        return found.clamp_max(logits.shape[-1] - 1)


class EventNetwork(nn.Module):
    """``p(context) * prod_t p(goes on | rows before t) p(row t | rows before t) * p(stops | all rows)``, exactly.

    The context tells whether there is a first row; from then on a row goes on or stops.

    Args:
        context: categories at the context's sites.
        gap: categories at the gap's sites, which the first row has not.
        others: categories at the sites of a row's other columns.
        width: features.
        depth: layers of the recurrent network.
    """

    def __init__(
        self, context: Sequence[int], gap: Sequence[int], others: Sequence[int], width: int = 128, depth: int = 1
    ) -> None:
        super().__init__()
        self.gaps, self.depth = len(gap), depth
        self.context = SiteByList(context, 0, width)
        self.row = SiteByList([2, *gap, *others], width, width)
        self.begin = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, (depth + 1) * width))
        self.clock = nn.Linear(2, width)
        self.units = nn.GRU(width, width, depth, batch_first=True)

    def beginning(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """The vector that the first row is told ``[B, D]``, and the recurrent state ``[L, B, D]``."""
        first, *state = self.begin(self.context.embedded(context).sum(-2)).chunk(self.depth + 1, -1)
        return first, torch.stack(state)

    def inputs(self, rows: Tensor, clock: Tensor, first: Tensor) -> Tensor:
        """What the recurrent network is shown of rows ``[..., S]``; ``first``, bool ``[...]``, has no gap."""
        each = self.row.embedded(F.pad(rows, (1, 0)))[..., 1:, :]
        shown = torch.ones_like(rows, dtype=each.dtype)
        shown[..., : self.gaps] = (~first)[..., None].to(each.dtype)
        return (each * shown[..., None]).sum(-2) + self.clock(clock)

    def read(self, rows: Tensor, clock: Tensor, length: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the recurrent network ``[B, T, D]`` over keys' rows from the first, and the state behind the last.

        Args:
            rows, clock, length: as for :meth:`log_prob`.
            state: before the first row.
        """
        batch, steps, _ = rows.shape
        place = torch.arange(steps, device=rows.device).expand(batch, steps)
        inside = place < length[:, None]  # sequences differ in length: leave out the padding
        shown = self.inputs(rows[inside], clock[inside], place[inside] == 0)
        inputs = shown.new_zeros(batch, steps, shown.shape[-1])
        inputs[inside] = shown
        lengths = length.clamp_min(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        out, state = self.units(packed, state)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=steps)[0], state

    def log_prob(self, context: Tensor, rows: Tensor, clock: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of contexts and of whole sequences.

        Args:
            context: int64 ``[B, Nc]``.
            rows: int64 ``[B, T, Nr]``, anything behind the end.
            clock: float32 ``[B, T, 2]``.
            length: int64 ``[B]``, at most T.

        Returns:
            ``[B, Nc]`` nats of the context's sites, and ``[B, T + 1, 1 + Nr]`` of going on (or stopping, behind the
            last row; not before the first) and of the rows' sites; zeros behind the end.
        """
        steps = rows.shape[1]
        told, state = self.beginning(context)
        seen = told[:, None]
        if steps:
            seen = torch.cat([seen, self.read(rows, clock, length, state)[0]], 1)
        place = torch.arange(steps + 1, device=rows.device)
        goes_on = place < length[:, None]
        values = torch.cat([goes_on.long()[..., None], F.pad(rows, (0, 0, 0, 1))], -1)
        reached = place <= length[:, None]
        values[:, 0, 1 : 1 + self.gaps] = 0  # the other columns of the first row see no gap either
        counted = torch.ones_like(values, dtype=torch.bool)
        counted[..., 1:] = goes_on[..., None]
        counted[:, 0, : 1 + self.gaps] = False  # that there is a first row is known from the context
        each = self.row.log_prob(values[reached], seen[reached])
        terms = each.new_zeros(values.shape)
        terms[reached] = torch.where(counted[reached], each, 0.0)
        return self.context.log_prob(context), terms

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        """Mean nats per item."""
        steps = int(batch["length"].max())
        told, terms = self.log_prob(
            batch["context"], batch["rows"][:, :steps], batch["clock"][:, :steps], batch["length"]
        )
        return -(told.sum() + terms.sum()) / len(told)
