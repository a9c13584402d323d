"""MaskGIT's tokenizer under its PyTorch names: random weights, and its networks written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def weights(
    make: Callable[..., Tensor], part: str, base: int, multipliers: tuple[int, ...], blocks: int, latents: int
) -> dict[str, Tensor]:
    """Random weights of the encoder or the decoder (``part``)."""
    state: dict[str, Tensor] = {}

    def conv(name: str, inputs: int, outputs: int, size: int, bias: bool) -> None:
        state[f"{name}.weight"] = make(outputs, inputs, size, size, scale=0.7 / (inputs**0.5 * size))
        if bias:
            state[f"{name}.bias"] = make(outputs)

    def norm(name: str, width: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + make(width, scale=0.2), make(width)

    def block(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.norm1", inputs), norm(f"{name}.norm2", outputs)
        conv(f"{name}.conv1", inputs, outputs, 3, False), conv(f"{name}.conv2", outputs, outputs, 3, False)
        if inputs != outputs:
            conv(f"{name}.nin_shortcut", outputs, outputs, 1, False)

    channels, top = [base * m for m in multipliers], len(multipliers) - 1
    if part == "encoder":
        conv("encoder.conv_in", 3, base, 3, False)
        width = base
        for level, outputs in enumerate(channels):
            for number in range(blocks):
                block(f"encoder.down.{level}.block.{number}", width, outputs)
                width = outputs
        conv("encoder.conv_out", channels[top], latents, 1, True), norm("encoder.norm_out", channels[top])
    else:
        conv("decoder.conv_in", latents, channels[top], 3, True)
        for level in range(top + 1):
            width = channels[min(level + 1, top)]
            for number in range(blocks):
                block(f"decoder.up.{level}.block.{number}", width, channels[level])
                width = channels[level]
            if level:
                conv(f"decoder.up.{level}.upsample_conv", width, width, 3, True)
        conv("decoder.conv_out", channels[0], 3, 3, True), norm("decoder.norm_out", channels[0])
    for number in range(blocks):
        block(f"{part}.mid.{number}", channels[top], channels[top])
    return state


class WrittenOut:
    """The networks, as functions of the state dict."""

    def __init__(self, state: dict[str, Tensor], levels: int, blocks: int):
        self.state, self.levels, self.blocks = state, levels, blocks

    def conv(self, x: Tensor, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.silu(F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-6))

    def block(self, x: Tensor, name: str) -> Tensor:
        h = self.conv(self.norm(x, f"{name}.norm1"), f"{name}.conv1")
        h = self.conv(self.norm(h, f"{name}.norm2"), f"{name}.conv2")
        # Where there is a shortcut it is fed by the branch, not by the input.
        return h + (self.conv(h, f"{name}.nin_shortcut") if f"{name}.nin_shortcut.weight" in self.state else x)

    def run(self, x: Tensor, name: str) -> Tensor:
        for number in range(self.blocks):
            x = self.block(x, f"{name}.{number}")
        return x

    def encode(self, images: Tensor) -> Tensor:
        x = self.conv(images, "encoder.conv_in")
        for level in range(self.levels):
            x = self.run(x, f"encoder.down.{level}.block")
            if level < self.levels - 1:
                x = sum(x[..., i::2, j::2] for i in range(2) for j in range(2)) / 4  # type: ignore[assignment]
        return self.conv(self.norm(self.run(x, "encoder.mid"), "encoder.norm_out"), "encoder.conv_out")

    def decode(self, latents: Tensor) -> Tensor:
        x = self.run(self.conv(latents, "decoder.conv_in"), "decoder.mid")
        for level in reversed(range(self.levels)):
            x = self.run(x, f"decoder.up.{level}.block")
            if level:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(x, f"decoder.up.{level}.upsample_conv")
        return self.conv(self.norm(x, "decoder.norm_out"), "decoder.conv_out")


def nearest(latents: Tensor, book: Tensor) -> tuple[Tensor, float]:
    """Codes ``[B, H * W]``, and by how much the best distance is ahead."""
    vectors = latents.flatten(2).transpose(1, 2)
    distances = (vectors[:, :, None] - book).square().sum(-1)
    best = distances.topk(2, largest=False)
    return best.indices[..., 0], float((best.values[..., 1] - best.values[..., 0]).min())


def images(count: int, side: int) -> Tensor:
    """uint8 pictures ``[n, 3, H, W]``."""
    return torch.randint(256, (count, 3, side, side), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
