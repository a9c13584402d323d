"""AdamW with sane parameter groups, the norm of the gradient, and the moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ancestral.training.config import TrainConfig


def decayed(module: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """The trainable parameters by name: those that decay, and those that do not.

    No decay for vectors and scalars (biases, gains), for anything inside a norm or an embedding layer (also
    when its weight is shared with an output matrix), and for a layer's own parameters named in its class
    attribute ``undecayed`` (tables of positions, start symbols).
    """
    spared: set[int] = set()
    for layer in module.modules():
        names = set(getattr(layer, "undecayed", ()))
        whole = isinstance(layer, nn.Embedding | nn.EmbeddingBag) or "norm" in type(layer).__name__.lower()
        for name, parameter in layer.named_parameters(recurse=False):
            if whole or parameter.ndim < 2 or name in names or name == "bias":
                spared.add(id(parameter))
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    return (
        {name: p for name, p in trainable.items() if id(p) not in spared},
        {name: p for name, p in trainable.items() if id(p) in spared},
    )


def build_optimiser(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, in one fused kernel where the device has it."""
    decay, no_decay = decayed(module)
    groups = [
        {"params": list(decay.values()), "weight_decay": config.weight_decay},
        {"params": list(no_decay.values()), "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    everything = [*decay.values(), *no_decay.values()]
    fused = all(p.device.type in ("cpu", "cuda", "xpu", "mps") and p.is_floating_point() for p in everything)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused or None)


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Euclidean norm of all gradients together: a scalar."""
    return torch.nn.utils.get_total_norm(gradients)


class Average:
    """Exponential moving average of weights: ``average += (1 - d) (weight - average)``.

    The decay warms up, ``d = min(decay, (1 + t) / (10 + t))`` at the t-th update, so that a short run is not
    held back by its initial weights.

    Args:
        weights: the trainable parameters by name.
        decay: in [0, 1).
    """

    def __init__(self, weights: dict[str, nn.Parameter], decay: float):
        self.decay = decay
        self.updates = 0
        self.names = list(weights)
        self._weights: list[Tensor] = list(weights.values())
        self.values = [w.detach().clone() for w in self._weights]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, self._weights, 1 - decay)
        self.updates += 1

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.names, self.values))

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The module holds the average inside the block, and its own weights again after it, bit for bit."""
        own = [w.detach().clone() for w in self._weights]
        with torch.no_grad():
            torch._foreach_copy_(self._weights, self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._weights, own)
