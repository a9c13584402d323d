"""Weights of a few bits: what is stored, what is computed with, and how coarse each matrix may be."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral import native
from ancestral.errors import DataError, UnsupportedError
from ancestral.quantisation.grids import (
    BLOCK,
    from_between,
    from_symmetric,
    pack_rows,
    ranges,
    round_between,
    round_symmetric,
    spans,
    unpack_rows,
)

if TYPE_CHECKING:
    from ancestral.generator import Generator


class Quantised(nn.Module):
    """A matrix ``[O, I]`` as codes of a few bits, with a scale for each group of a row's numbers.

    Args:
        rows, columns: O and I; groups lie along I, the dimension that a product sums over.
        bits: of a code.
        group: numbers that share a scale.
        between: the grid of a group reaches from its least number to its largest, rather than as far to both sides of
            zero.

    Attributes:
        codes: as :func:`ancestral.quantisation.grids.pack_rows` stores them.
        scales: float16 or float32 ``[O, ceil(I / group)]``.
        least: as ``scales``, what the lowest code stands for; None unless ``between``.
    """

    codes: Tensor
    scales: Tensor
    least: Tensor | None

    def __init__(self, rows: int, columns: int, bits: int, group: int, between: bool = False):
        super().__init__()
        self.rows, self.columns, self.bits, self.group = rows, columns, bits, group
        self.register_buffer("codes", pack_rows(torch.zeros(rows, columns, dtype=torch.int8), bits))
        self.register_buffer("scales", torch.zeros(rows, -(-columns // group), dtype=torch.float16))
        self.register_buffer("least", torch.zeros_like(self.scales) if between else None)

    @torch.no_grad()
    def store(self, weight: Tensor, search: bool = False) -> None:
        """Round ``weight`` float ``[O, I]`` to the grid (:func:`ancestral.quantisation.grids.round_symmetric`,
        :func:`ancestral.quantisation.grids.round_between`)."""
        if self.least is None:
            codes, self.scales = round_symmetric(weight.float(), self.bits, self.group, search)
        else:
            codes, self.scales, self.least = round_between(weight.float(), self.bits, self.group, search)
        self.codes = pack_rows(codes, self.bits)

    @property
    def weight(self) -> Tensor:
        """The matrix that is stored, float32 ``[O, I]``, made when it is asked for."""
        return self.read(slice(None))

    def read(self, rows: Tensor | slice) -> Tensor:
        """Some rows of the matrix, float32 ``[..., I]``."""
        codes, scales = unpack_rows(self.codes[rows], self.bits, self.columns), self.scales[rows]
        if self.least is None:
            return from_symmetric(codes, scales, self.group)
        return from_between(codes, scales, self.least[rows], self.bits, self.group)

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x @ weight.T + bias`` of float32 ``[..., I]``: float32 ``[..., O]``."""
        if native.few(x) and self.bits >= 4 and (self.group % BLOCK == 0 or self.scales.shape[1] == 1):
            wide = -(-self.group // BLOCK) * BLOCK
            return native.linear_quantised(x, self.codes, self.scales, wide, bias, self.least)
        return F.linear(x, self.weight, bias)

    def plan(self) -> dict[str, Any]:
        """What an empty one is made from again."""
        dtype = str(self.scales.dtype).removeprefix("torch.")
        plan: dict[str, Any] = {"bits": self.bits, "group": self.group, "scales": dtype}
        return plan if self.least is None else plan | {"between": True}

    def extra_repr(self) -> str:
        return f"{self.columns}, {self.rows}, bits={self.bits}, group={self.group}"


class QuantisedLinear(Quantised):
    """Takes the place of a linear map; its bias stays as it is."""

    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, bits: int, group: int, between: bool = False):
        super().__init__(linear.out_features, linear.in_features, bits, group, between)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.bias)


class QuantisedEmbedding(Quantised):
    """Takes the place of a table of vectors, a row for each symbol."""

    def __init__(self, table: nn.Embedding, bits: int, group: int, between: bool = False):
        super().__init__(table.num_embeddings, table.embedding_dim, bits, group, between)
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim

    def forward(self, index: Tensor) -> Tensor:
        return self.read(index)


def mean_range(weight: Tensor, group: int, between: bool = False) -> float:
    """The mean over all weights ``[..., I]`` of the largest absolute value in their group, or of half its span."""
    columns = weight.shape[-1]
    if between:
        low, high = spans(weight, group)
        found = (high - low) / 2
    else:
        found = ranges(weight, group)
    sizes = torch.full((found.shape[-1],), group)
    sizes[-1] -= group * len(sizes) - columns
    return float((found * sizes.to(found.device)).sum(-1).mean()) / columns


@dataclass(frozen=True)
class FineQuant:
    """Weight-only quantisation whose groups are as small as each matrix needs, found from the weights alone.

    Every row's input dimension is cut into groups with a scale each. A matrix begins with whole rows; the group is
    halved or more (to a power of two) as long as that shrinks the mean range of the groups that the weights are in to
    ``shrink`` times what it was, or to less: outliers, which stretch the range of all that share their scale, are so
    left with few neighbours.
    Kim, Henry, Fahim and Hassan Awadalla 2023, arXiv:2308.09723; the statistic and the default of ``shrink`` are ours.

    Args:
        bits: 8 or 4, of linear maps.
        group: the same group for every matrix; None adapts it, 0 takes whole rows.
        shrink: the mean range after halving, relative to that before, that is still worth it.
        smallest: group that is not halved any more.
        embeddings: bits of tables of vectors; None leaves them as they are.
        search: look for the scale of the least squared error in each group of 4 bits, rather than take that of the
            range as the paper does.
        between: let the grid of a group reach from its least weight to its largest, by an offset beside the scale,
            rather than as far to both sides of zero; twice the numbers beside the codes. Weights that come from such
            groups, as GGUF's Q4_1 of 32, are found again.
    """

    bits: int = 4
    group: int | None = None
    shrink: float = 0.95
    smallest: int = 32
    embeddings: int | None = 8
    search: bool = True
    between: bool = False

    def __post_init__(self) -> None:
        for bits in (self.bits, self.embeddings):
            if bits not in (4, 8) and not (bits is None and bits is self.embeddings):
                raise ValueError(f"weights have 4 or 8 bits, not {bits!r}")
        if self.group is not None and self.group < 0:
            raise ValueError(f"group={self.group} must be positive, 0 for whole rows, or None to adapt it")
        if self.smallest < 1:
            raise ValueError(f"smallest={self.smallest} must be at least 1")
        if not 0 < self.shrink < 1:
            raise ValueError(f"shrink={self.shrink} must be in (0, 1)")

    @classmethod
    def asked(cls, bits: int, **options: Any) -> Self:
        """With settings that a user gave.

        Raises:
            DataError: impossible or unknown ones.
        """
        try:
            return cls(bits, **options)
        except (TypeError, ValueError) as error:
            raise DataError(f"the weights cannot be quantised so: {error}") from error

    def size(self, weight: Tensor) -> int:
        """The group of a matrix ``[O, I]``."""
        columns = weight.shape[-1]
        whole = -(-columns // BLOCK) * BLOCK
        if self.group is not None:
            return min(self.group, whole) or whole
        group, mean = whole, mean_range(weight, whole, self.between)
        half = 1 << (columns.bit_length() - 1) >> 1
        while half >= self.smallest:
            finer = mean_range(weight, half, self.between)
            if finer > self.shrink * mean:
                break
            group, mean, half = half, finer, half // 2
        return group

    def apply(self, root: nn.Module) -> None:
        """Put quantised ones in the place of all linear maps and tables of ``root``.

        Raises:
            UnsupportedError: some are quantised already, or there are none.
        """
        if any(isinstance(module, Quantised) for module in root.modules()):
            raise UnsupportedError("the weights are quantised already; start from the model with full weights")
        found = False
        for parent, name, module in _plain(root):
            bits = self.bits if isinstance(module, nn.Linear) else self.embeddings
            if bits is None:
                continue
            weight = module.weight.detach().float()
            made = _made(module, bits, self.size(weight), self.between)
            made.store(weight, self.search and bits < 8)
            parent._modules[name] = made.train(module.training).to(weight.device)
            found = True
        if not found:
            raise UnsupportedError("this model has no linear maps or tables whose weights could be quantised")


def rounded(generator: Generator, how: FineQuant) -> Generator:
    """The same generator with rounded weights; whatever is not rounded is shared with it.

    Args:
        generator: stays as it is.
        how: how weights are rounded.
    """
    shared = [*generator.parameters(), *generator.buffers()]
    made = copy.deepcopy(generator, {id(t): t for t in shared})
    how.apply(made)
    return made


def _plain(root: nn.Module) -> list[tuple[nn.Module, str, nn.Linear | nn.Embedding]]:
    """Linear maps and tables with their parents, each once per place."""
    found: list[tuple[nn.Module, str, nn.Linear | nn.Embedding]] = []
    for parent in root.modules():
        for name, child in parent.named_children():
            if isinstance(child, (nn.Linear, nn.Embedding)) and type(child) in (nn.Linear, nn.Embedding):
                found.append((parent, name, child))
    return found


def _made(module: nn.Linear | nn.Embedding, bits: int, group: int, between: bool = False) -> Quantised:
    if isinstance(module, nn.Linear):
        return QuantisedLinear(module, bits, group, between)
    return QuantisedEmbedding(module, bits, group, between)


def plans(root: nn.Module) -> dict[str, dict[str, Any]]:
    """What is quantised, by name; empty if nothing is."""
    return {name: module.plan() for name, module in root.named_modules() if isinstance(module, Quantised)}


def follow(root: nn.Module, found: dict[str, dict[str, Any]]) -> None:
    """Put empty quantised modules where :func:`plans` found some, to be filled by ``load_state_dict``.

    Raises:
        DataError: a name that is no linear map or table.
    """
    for name, plan in found.items():
        parent_name, _, last = name.rpartition(".")
        try:
            parent = root.get_submodule(parent_name)
            module = root.get_submodule(name)
        except AttributeError:
            raise DataError(f"{name!r} is said to be quantised and is no part of this model") from None
        if type(module) not in (nn.Linear, nn.Embedding):
            raise DataError(f"{name!r} is said to be quantised and is no linear map or table of vectors")
        assert isinstance(module, (nn.Linear, nn.Embedding))
        made = _made(module, int(plan["bits"]), int(plan["group"]), bool(plan.get("between", False)))
        dtype = {"float16": torch.float16, "float32": torch.float32}[plan["scales"]]
        made.scales, made.least = made.scales.to(dtype), None if made.least is None else made.least.to(dtype)
        parent._modules[last] = made


def stored_bytes(root: nn.Module) -> int:
    """Bytes of all weights as they are kept and saved; what modules share counts once."""
    return sum(t.numel() * t.element_size() for t in root.state_dict().values())


def weights(root: nn.Module) -> int:
    """Number of weights, whatever they are stored as."""
    coarse = sum(m.rows * m.columns for m in root.modules() if isinstance(m, Quantised))
    return coarse + sum(p.numel() for p in root.parameters())
