"""The transformers of published language models, so that their weights can be used as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.native.transformer import Shape
from ancestral.networks.base import SequenceNetwork
from ancestral.networks.transformer import CausalTransformer, Layers, Rotary, SwiGLU, initialise
from ancestral.space import Space

BIASED = ("qkv", "out", "mlp")


class RootMeanSquare(nn.Module):
    """Root-mean-square normalisation over the last axis with a given ``epsilon`` (arXiv:1910.07467)."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class GELU(nn.Module):
    """Feed-forward layer with the tanh form of the Gaussian error linear unit (arXiv:1606.08415), as in GPT-2."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, bias: bool = True):
        super().__init__()
        self.inner = nn.Linear(width, hidden, bias=bias)
        self.outer = nn.Linear(hidden, width, bias=bias)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.inner(x), approximate="tanh")
        return self.outer(F.dropout(hidden, self.dropout, self.training))


class LanguageBlock(nn.Module):
    """Pre-norm attention and feed-forward layer; groups of heads may share keys and values.

    Grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245.

    Args:
        width: features D.
        heads: query heads H.
        kv_heads: key and value heads G; H is a multiple of it.
        head: features E of a head.
        hidden: of the feed-forward layer.
        gated: SwiGLU and RMSNorm (Llama) rather than GELU and LayerNorm (GPT-2).
        epsilon: of the normalisation.
        bias: which linear maps have biases, of ``BIASED``.
        dropout: share of attention weights and activations dropped in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head: int,
        hidden: int,
        gated: bool = True,
        epsilon: float = 1e-5,
        bias: Sequence[str] = (),
        dropout: float = 0.0,
    ):
        super().__init__()
        if heads % kv_heads:
            raise ValueError(f"{heads} query heads cannot share {kv_heads} key heads evenly")
        self.heads, self.kv_heads, self.head, self.dropout = heads, kv_heads, head, dropout
        self.norm = _norm(width, epsilon, gated)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * head, bias="qkv" in bias)
        self.out = nn.Linear(heads * head, width, bias="out" in bias)
        self.norm2 = _norm(width, epsilon, gated)
        self.mlp: nn.Module
        if gated:
            self.mlp = SwiGLU(width, dropout=dropout, hidden=hidden, bias="mlp" in bias)
        else:
            self.mlp = GELU(width, hidden, dropout, "mlp" in bias)

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[B, H, T, E]``, keys and values ``[B, G, T, E]`` of ``x`` ``[B, T, D]``."""
        b, t, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(b, t, -1, self.head).transpose(1, 2)
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], 1)
        return turn_halves(q, rotation), turn_halves(k, rotation), v

    def shape(self) -> Shape | None:
        """For the compiled kernels."""
        return Shape(self.heads, self.kv_heads, self.head, True, isinstance(self.mlp, SwiGLU))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attention and output projection: ``[B, T, D]``."""
        b, _, t, _ = q.shape
        drop = self.dropout if self.training else 0.0
        share = self.heads // self.kv_heads
        if t == 1 and share > 1:
            # One place: the heads of a group are like places that see the same keys.
            q = q.reshape(b, self.kv_heads, share, self.head)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
            return self.out(y.reshape(b, 1, -1))
        if share > 1:
            k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=drop)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Residual connections and the feed-forward layer."""
        x = x + F.dropout(attended, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.norm2(x)), self.dropout, self.training)


def turn_halves(x: Tensor, turn: Tensor | None) -> Tensor:
    """Turn the first half of every head's features against the second, as published language models do.

    Args:
        x: heads float ``[B, H, T, E]``.
        turn: complex ``[T, E / 2]`` or ``[B, T, E / 2]``, of modulus 1; None leaves them as they are.
    """
    if turn is None:
        return x
    cos, sin = (part if turn.dim() == 2 else part[:, None] for part in (turn.real, turn.imag))
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def _norm(width: int, epsilon: float, gated: bool) -> nn.Module:
    return RootMeanSquare(width, epsilon) if gated else nn.LayerNorm(width, eps=epsilon)


class LanguageTransformer(CausalTransformer):
    """Causal transformer with the options of Llama, its relatives and GPT-2.

    The input before the first symbol is the vector ``first``; in a published model it is the embedding of the
    symbol that begins a text.

    Args:
        width: features D.
        depth: layers.
        heads: query heads.
        kv_heads: key and value heads; by default as many as query heads.
        head: features of a head; by default ``width / heads``.
        hidden: of the feed-forward layer; by default ``8/3 width`` (SwiGLU) or ``4 width`` (GELU).
        gated: RMSNorm, SwiGLU and rotary positions (Llama), or LayerNorm, GELU and learned positions (GPT-2).
        theta: base of the rotary positions.
        factors: every rotary frequency is divided by its factor (contexts longer than in training).
        epsilon: of the normalisation.
        bias: which linear maps have biases, of ``BIASED``.
        tied: the head will share the embedding's weights, which are small then.
        dropout: share of attention weights and activations dropped in training.

    Shapes:
        values: int64 ``[B, N]``; features float32 ``[B, N, D]``.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 8,
        heads: int | None = None,
        kv_heads: int | None = None,
        head: int | None = None,
        hidden: int | None = None,
        *,
        gated: bool = True,
        theta: float = 10000.0,
        factors: Sequence[float] = (),
        epsilon: float = 1e-5,
        bias: Sequence[str] = (),
        tied: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__(width, depth, heads, dropout, targets=False, rotary=gated)
        self.kv_heads = kv_heads or self.heads
        if head is None and width % self.heads:
            raise ValueError(f"width {width} is no multiple of the {self.heads} heads; give head=, the size of one")
        self.head = head or width // self.heads
        if gated and self.head % 2:
            raise ValueError(f"rotary positions need heads of an even size, got {self.head}")
        if unknown := set(bias) - set(BIASED):
            raise ValueError(f"bias={sorted(unknown)[0]!r} is unknown; choose of {', '.join(BIASED)}")
        self.hidden = hidden or (16 * max(1, round(width / 6)) if gated else 4 * width)
        self.gated, self.theta, self.factors = gated, theta, tuple(factors)
        self.epsilon, self.bias, self.tied = epsilon, tuple(bias), tied

    def build(self, space: Space) -> LanguageTransformer:
        if not space.discrete or space.event or isinstance(space.sizes, tuple):
            raise ValueError("a language model needs one symbol of one vocabulary per site")
        SequenceNetwork.build(self, space)
        if not self.gated:
            self.target = nn.Embedding(space.n, self.width)
            nn.init.normal_(self.target.weight, std=0.1)
        if self.tied:
            for weight in (self.embed.table.weight, self.first):
                nn.init.normal_(weight, std=1 / math.sqrt(self.width))
        self.rotation = Rotary(space, self.head, self.theta, self.factors) if self.gated else None
        self.blocks = Layers(
            LanguageBlock(
                self.width, self.heads, self.kv_heads, self.head, self.hidden,
                self.gated, self.epsilon, self.bias, self.dropout,
            )
            for _ in range(self.depth)
        )  # fmt: skip
        self.norm = _norm(self.width, self.epsilon, self.gated)  # type: ignore[assignment]
        initialise(self.blocks, self.depth)
        return self
