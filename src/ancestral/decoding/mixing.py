"""A network's predictions mixed with those of counted strings, which go on counting while a stream is read.

The mixture is a weighted product of the experts' probabilities, normalised again (logarithmic opinion pool; Hinton
2002, "Training products of experts by minimizing contrastive divergence"). The weights come from a small gate that
sees how sure every expert is and how often every context occurred, as the mixers of PAQ choose theirs by context
(Mahoney 2005, "Adaptive weighing of context models for lossless data compression"). The gate is fitted to validation
data, since a network is too sure of what it was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ancestral.decoding.ngrams import History, Rows, StringCounts, gather
from ancestral.errors import DataError
from ancestral.heads.base import Chooser, Finite, Leaf
from ancestral.space import Space

_BLOCK = 512
"""Places of a stream that are mixed at a time."""

_FITTED = 1 << 27
"""Most log-probabilities (places times experts times symbols) that the gate is fitted to at once."""

_GATE = ("mean", "scale", "inner", "inner_bias", "outer", "outer_bias")


class NGramMixture(nn.Module):
    """Experts: the network, and the chances behind the last 1 to ``order`` symbols of a stream.

    Until :meth:`fit` has been called the mixture is the network alone. It has no trainable parameters; the training
    stream and the gate are buffers, so that they are saved, loaded and fingerprinted with the weights. A saved model
    therefore holds its training stream.

    Args:
        order: longest context, at least 1.
        hidden: units of the gate.
    """

    memory: Tensor
    mean: Tensor

    def __init__(self, order: int = 8, hidden: int = 16):
        super().__init__()
        if order < 1 or hidden < 1:
            raise ValueError(f"a mixture needs contexts and a gate of at least 1, got order={order}, hidden={hidden}")
        self.order, self.hidden = order, hidden
        self._ready: tuple[StringCounts, list[np.ndarray]] | None = None

    def build(self, space: Space) -> NGramMixture:
        """Create the buffers for streams of ``space``'s symbols; returns self."""
        if not isinstance(space.sizes, int) or space.sizes < 1 or space.event or space.stop is not None:
            raise ValueError("counts of strings can be mixed into models of streams of one kind of symbol only")
        self.alphabet = space.sizes
        features = 4 * self.order + 2
        self.register_buffer("memory", torch.zeros(0, dtype=self._dtype))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("inner", torch.zeros(features, self.hidden))
        self.register_buffer("inner_bias", torch.zeros(self.hidden))
        self.register_buffer("outer", torch.zeros(self.hidden, self.order + 1))
        self.register_buffer("outer_bias", F.one_hot(torch.tensor(0), self.order + 1).float())
        self._ready = None
        return self

    @property
    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self.alphabet <= 256 else torch.int32

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        found = state_dict.get(f"{prefix}memory")
        if found is not None:  # as long as the stream that the model was fitted to
            self.memory = torch.zeros_like(found, device=self.mean.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._ready = None

    def _tables(self) -> tuple[StringCounts, list[np.ndarray]]:
        if self._ready is None:
            gate = [getattr(self, name).double().cpu().numpy() for name in _GATE]
            self._ready = StringCounts.of(self.memory.cpu().numpy(), self.alphabet, self.order), gate
        return self._ready

    def history(self, past: Iterable[int] = ()) -> History:
        """A new stream that begins with ``past``, on top of the counts of the training stream."""
        history = History(self._tables()[0])
        for symbol in past:
            history.append(symbol)
        return history

    # -- fitting

    def fit(
        self,
        stream: Tensor,
        held: Tensor | None,
        network: Callable[[Tensor], Iterator[Tensor]],
        *,
        steps: int = 800,
        batch_size: int = 512,
        lr: float = 5e-3,
        seed: int = 0,
        remember_held: bool = False,
    ) -> NGramMixture:
        """Remember ``stream`` and fit the gate to ``held``.

        Args:
            stream: int64 ``[T]``, what the network was trained on.
            held: int64 ``[T']``, what it was not trained on; None takes the last twentieth of ``stream``, of which
                the network may be too sure.
            network: log-probabilities ``[t, K]`` of a stream's symbols given those before, piece by piece.
            steps, batch_size, lr: of Adam with a cosine schedule, on places of ``held``.
            seed: of the gate's start and of the places.
            remember_held: once the gate is fitted, remember ``held`` behind ``stream`` as well.

        Raises:
            DataError: nothing to fit the gate to.
        """
        if held is None:
            cut = len(stream) - len(stream) // 20
            first, held, remembered = stream[:cut], stream[cut:], stream
        else:
            first, remembered = stream, torch.cat([stream, held]) if remember_held else stream
        held = held[: max(1, _FITTED // ((self.order + 1) * self.alphabet))]
        if not len(held):
            raise DataError("there is no text to fit the mixture's weights to; give more text, or validation=")
        self.memory, self._ready = first.to(self._dtype).to(self.mean.device), None
        pieces = [self._experts(*piece) for piece in self._read(held, network(held))]
        experts = torch.from_numpy(np.concatenate([e.astype(np.float32) for e, _ in pieces]))
        features = torch.from_numpy(np.concatenate([f for _, f in pieces])).float()
        del pieces
        self._fit_gate(experts, features, held, steps, batch_size, lr, seed)
        self.memory, self._ready = remembered.to(self._dtype).to(self.mean.device), None
        return self

    def _fit_gate(
        self, experts: Tensor, features: Tensor, truth: Tensor, steps: int, batch_size: int, lr: float, seed: int
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        mean, scale = features.mean(0), 1 / (features.std(0, correction=0) + 1e-2)
        features = (features - mean) * scale
        width = features.shape[1]
        inner = torch.randn(width, self.hidden, generator=generator) / width**0.5
        gate = [inner, torch.zeros(self.hidden), torch.zeros(self.hidden, self.order + 1)]
        gate.append(torch.cat([torch.full((1,), 0.5), torch.full((self.order,), 0.5 / self.order)]))
        with torch.enable_grad():
            gate = [g.requires_grad_() for g in gate]
            optimiser = torch.optim.AdamW(gate, lr, weight_decay=0.1)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
            for _ in range(steps):
                at = torch.randint(len(truth), (min(batch_size, len(truth)),), generator=generator)
                weights = torch.tanh(features[at] @ gate[0] + gate[1]) @ gate[2] + gate[3]
                logits = torch.einsum("rj,rjk->rk", weights, experts[at])
                optimiser.zero_grad()
                F.cross_entropy(logits, truth[at]).backward()
                optimiser.step()
                schedule.step()
        for name, value in zip(_GATE, (mean, scale, *gate), strict=True):
            getattr(self, name).copy_(value.detach())

    # -- predicting

    def log_probs(self, network: np.ndarray, histories: list[History]) -> np.ndarray:
        """Mixed log-probabilities of the next symbols of several streams.

        Args:
            network: float64 ``[R, K]``, the network's log-probabilities.
            histories: R streams.

        Returns:
            float64 ``[R, K]``, nats; they sum to 1.
        """
        return self._mix(network, gather(self._tables()[0], histories))

    def stream_log_prob(self, stream: Tensor, network: Iterator[Tensor]) -> Tensor:
        """Log-probability of every symbol of a stream, float64 ``[T]``.

        Args:
            stream: int64 ``[T]``.
            network: the network's log-probabilities ``[t, K]`` at successive places, piece by piece.
        """
        out, done = torch.zeros(len(stream), dtype=torch.float64), 0
        for log_probs, rows in self._read(stream, network):
            count = len(log_probs)
            mixed = torch.from_numpy(self._mix(log_probs, rows))
            out[done : done + count] = mixed.gather(1, stream[done : done + count, None])[:, 0]
            done += count
        return out

    def _read(self, stream: Tensor, network: Iterator[Tensor]) -> Iterator[tuple[np.ndarray, Rows]]:
        """The network's log-probabilities and the counts at successive places of a stream, block by block."""
        counts, history = self._tables()[0], self.history()
        symbols, done = stream.tolist(), 0
        for piece in network:
            for part in piece.double().cpu().split(_BLOCK):
                rows = Rows(counts)
                for symbol in symbols[done : done + len(part)]:
                    rows.add(history)
                    history.append(symbol)
                done += len(part)
                yield part.numpy(), rows

    def _experts(self, network: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities by every expert, the network first, ``[R, order + 1, K]``, and the gate's features."""
        chances, counted = rows.predict()
        experts = np.concatenate([np.maximum(network, -50.0)[:, None], np.log(chances)], 1)
        sure = np.concatenate([-(np.exp(experts) * experts).sum(-1), experts.max(-1)], 1)
        return experts, np.concatenate([counted, sure], 1)

    def _mix(self, network: np.ndarray, rows: Rows) -> np.ndarray:
        experts, features = self._experts(network, rows)
        mean, scale, inner, inner_bias, outer, outer_bias = self._tables()[1]
        hidden = np.tanh(np.einsum("rf,fh->rh", (features - mean) * scale, inner) + inner_bias)
        weights = np.einsum("rh,hj->rj", hidden, outer) + outer_bias
        logits = np.einsum("rj,rjk->rk", weights, experts)
        logits -= logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))


class Mixed:
    """Shows another chooser the mixture in place of the network alone, one symbol of every stream at a time.

    Args:
        chooser: decides; what it decides is counted.
        mixture: fitted.
        histories: the streams, one per row.
    """

    def __init__(self, chooser: Chooser, mixture: NGramMixture, histories: list[History]):
        self.chooser, self.mixture, self.histories = chooser, mixture, histories

    def __call__(self, leaf: Leaf, given: Tensor | None, alive: Tensor | None) -> Tensor:
        assert isinstance(leaf, Finite) and leaf.logits.shape[1] == 1, "streams are mixed one symbol at a time"
        rows = list(range(len(self.histories)))
        if alive is not None:
            rows = [row for row in rows if bool(alive[row, 0])]
        here = [self.histories[row] for row in rows]
        network = torch.log_softmax(leaf.logits[rows, 0].double().cpu(), -1).numpy()
        logits = leaf.logits.float()
        logits[rows, 0] = torch.from_numpy(self.mixture.log_probs(network, here)).to(logits)
        chosen = self.chooser(Finite(logits), given, alive)
        for history, symbol in zip(here, chosen[rows, 0].tolist(), strict=True):
            history.append(symbol)
        return chosen
