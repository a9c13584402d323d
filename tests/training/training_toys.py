"""Small modules for the tests of training, and a script that trains one in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys

import torch
from torch import Tensor, nn

from ancestral.noise import Noise
from ancestral.training import Items, TrainConfig, train


class Scale(nn.Module):
    """One weight w with loss w * mean(values): its gradient is the mean of the values."""

    def __init__(self, weight: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), weight))

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        return (self.weight * batch["values"].float()).mean()


class Quadratic(nn.Module):
    """A point pulled to the mean of the values."""

    def __init__(self, size: int = 3):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(size))

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        return (self.point - batch["values"]).square().sum(-1).mean()


class Denoiser(nn.Module):
    """A regressor with everything a resumed run must get right.

    One layer rests in half of the steps, another always. ``noisy`` adds dropout, noise from the generator and
    a buffer that counts; else randomness comes from the items' seeds alone.
    """

    def __init__(self, noisy: bool):
        super().__init__()
        self.noisy = noisy
        self.embed = nn.Embedding(5, 8)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.2 * noisy))
        self.out, self.sometimes, self.never = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.uses = 0

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        noise = Noise(batch["item_seed"]).normal(8).float()
        if self.noisy:
            noise = noise + torch.randn(noise.shape, generator=generator)
            if self.training:
                self.seen += 1
        target = self.embed(batch["values"])
        hidden = self.body(target.detach() + noise)
        found = self.out(hidden)
        if int(progress * 12) % 2:
            found = found + self.sometimes(hidden)
        spread = (target.square().mean(-1) - 1).square()
        return ((found - target).square().mean(-1) + spread).mean()


def data(items: int = 37) -> Items:
    return Items(values=torch.randint(0, 5, (items,), generator=torch.Generator().manual_seed(1)).to(torch.uint8))


def main() -> None:
    """Usage: training_toys.py JSON, with the settings of TrainConfig and "noisy", "kill_at", "result"."""
    from safetensors.torch import save_file

    settings = json.loads(sys.argv[1])
    noisy, kill_at, result = (settings.pop(key, None) for key in ("noisy", "kill_at", "result"))
    rank = int(os.environ.get("RANK", "0"))
    torch.manual_seed(rank if not noisy else 0)  # processes must not rely on equal initial weights
    module = Denoiser(bool(noisy))

    def kill(row, training):
        if row["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    history = train(module, data(), TrainConfig(**settings, quiet=True), data(11), [kill])
    if rank == 0:
        save_file(module.state_dict(), result + ".safetensors")
        rows = [{k: v for k, v in row.items() if k not in ("seconds", "items_per_s")} for row in history.rows]
        with open(result + ".json", "w") as file:
            json.dump({"rows": rows, "resumed": history.resumed_from}, file)


if __name__ == "__main__":
    main()
