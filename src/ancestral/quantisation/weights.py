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
from ancestral.quantisation.grids import BLOCK, from_symmetric, pack_rows, ranges, round_symmetric, unpack_rows

if TYPE_CHECKING:
    from ancestral.generator import Generator


class Quantised(nn.Module):
    """A matrix ``[O, I]`` as codes of a few bits, with a scale for each group of a row's numbers.

    Args:
        rows, columns: O and I; groups lie along I, the dimension that a product sums over.
        bits: of a code.
        group: numbers that share a scale.

    Attributes:
        codes: as :func:`ancestral.quantisation.grids.pack_rows` stores them.
        scales: float16 or float32 ``[O, ceil(I / group)]``.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, rows: int, columns: int, bits: int, group: int):
        super().__init__()
        self.rows, self.columns, self.bits, self.group = rows, columns, bits, group
        self.register_buffer("codes", pack_rows(torch.zeros(rows, columns, dtype=torch.int8), bits))
        self.register_buffer("scales", torch.zeros(rows, -(-columns // group), dtype=torch.float16))

    @torch.no_grad()
    def store(self, weight: Tensor, search: bool = False) -> None:
        """Round ``weight`` float ``[O, I]`` to the grid; see :func:`ancestral.quantisation.grids.round_symmetric`."""
        codes, self.scales = round_symmetric(weight.float(), self.bits, self.group, search)
        self.codes = pack_rows(codes, self.bits)

    @property
    def weight(self) -> Tensor:
        """The matrix that is stored, float32 ``[O, I]``, made when it is asked for."""
        return self.read(self.codes, self.scales)

    def read(self, codes: Tensor, scales: Tensor) -> Tensor:
        """What rows of codes and scales stand for: float32 ``[..., I]``."""
        return from_symmetric(unpack_rows(codes, self.bits, self.columns), scales, self.group)

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x @ weight.T + bias`` of float32 ``[..., I]``: float32 ``[..., O]``."""
        if native.few(x) and self.bits >= 4 and (self.group % BLOCK == 0 or self.scales.shape[1] == 1):
            wide = -(-self.group // BLOCK) * BLOCK
            return native.linear_q8(x, self.codes, self.scales, wide, bias)
        return F.linear(x, self.weight, bias)

    def plan(self) -> dict[str, Any]:
        """What an empty one is made from again."""
        dtype = str(self.scales.dtype).removeprefix("torch.")
        return {"bits": self.bits, "group": self.group, "scales": dtype}

    def extra_repr(self) -> str:
        return f"{self.columns}, {self.rows}, bits={self.bits}, group={self.group}"


class QuantisedLinear(Quantised):
    """Takes the place of a linear map; its bias stays as it is."""

    bias: nn.Parameter | None

    def __init__(self, linear: nn.Linear, bits: int, group: int):
        super().__init__(linear.out_features, linear.in_features, bits, group)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.bias)


class QuantisedEmbedding(Quantised):
    """Takes the place of a table of vectors, a row for each symbol."""

    def __init__(self, table: nn.Embedding, bits: int, group: int):
        super().__init__(table.num_embeddings, table.embedding_dim, bits, group)
        self.num_embeddings, self.embedding_dim = table.num_embeddings, table.embedding_dim

    def forward(self, index: Tensor) -> Tensor:
        return self.read(self.codes[index], self.scales[index])


def mean_range(weight: Tensor, group: int) -> float:
    """The mean over all weights ``[..., I]`` of the largest absolute value in their group."""
    found, columns = ranges(weight, group), weight.shape[-1]
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
    """

    bits: int = 4
    group: int | None = None
    shrink: float = 0.95
    smallest: int = 32
    embeddings: int | None = 8
    search: bool = True

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
        group, mean = whole, mean_range(weight, whole)
        half = 1 << (columns.bit_length() - 1) >> 1
        while half >= self.smallest:
            finer = mean_range(weight, half)
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
            made = _made(module, bits, self.size(weight))
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


def _made(module: nn.Linear | nn.Embedding, bits: int, group: int) -> Quantised:
    if isinstance(module, nn.Linear):
        return QuantisedLinear(module, bits, group)
    return QuantisedEmbedding(module, bits, group)


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
        made = _made(module, int(plan["bits"]), int(plan["group"]))
        made.scales = made.scales.to({"float16": torch.float16, "float32": torch.float32}[plan["scales"]])
        parent._modules[last] = made


def stored_bytes(root: nn.Module) -> int:
    """Bytes of all weights as they are kept and saved; what modules share counts once."""
    return sum(t.numel() * t.element_size() for t in root.state_dict().values())


def weights(root: nn.Module) -> int:
    """Number of weights, whatever they are stored as."""
    coarse = sum(m.rows * m.columns for m in root.modules() if isinstance(m, Quantised))
    return coarse + sum(p.numel() for p in root.parameters())
