"""Authors' golden vectors of MAR: its variational autoencoder, its network, and its diffusion loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from parity import close, golden
from torch import Tensor

import ancestral
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.heads.diffusion import Chain, DiffusionDensity, cosine_schedule
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.order import Order, cosine_sets
from ancestral.published.mar import times
from ancestral.space import Condition
from ancestral.tokenizers.learned import KL, Autoencoder


class Recorded(Noise):
    """Noise that was drawn elsewhere, handed out in turn."""

    def __init__(self, draws: list[Tensor]):
        super().__init__(torch.zeros(len(draws[0]), dtype=torch.int64))
        self.draws = list(draws)

    def normal(self, *shape: int) -> Tensor:
        draw = self.draws.pop(0)
        assert draw.shape[1:] == shape
        return draw.double()


def loaded(shared: Any) -> tuple[Model, dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    folder, config, inputs, wanted = golden(shared, "mar/mar")
    settings = {**config["model"], "num_iter": config["sample"]["num_iter"]}
    model = ancestral.load_published("mar", folder / "state_dict.safetensors", settings)
    assert isinstance(model, Model)
    return model, config, inputs, wanted


def folded(latents: Tensor) -> Tensor:
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


@torch.no_grad()
def test_autoencoder(shared: Any) -> None:
    folder, config, inputs, wanted = golden(shared, "mar/kl_vae")
    settings = {**config["model"], **config["autoencoder_overrides"], "image_size": 16}
    tokenizer = ancestral.load_published("mar_kl_vae", folder / "state_dict.safetensors", settings)
    assert isinstance(tokenizer, Autoencoder) and isinstance(tokenizer.quantiser, KL)
    moments = tokenizer.backbone.encode(inputs["image"])
    close(moments, wanted["moments"])
    mean, log_variance = tokenizer.quantiser.posterior(moments)
    close(mean, wanted["mean"])
    close((0.5 * log_variance).exp(), wanted["std"])
    close(tokenizer.quantiser.divergence(moments), wanted["kl"])
    close(tokenizer.backbone.decode(inputs["z"]), wanted["decode_z"])
    codes = tokenizer.quantiser.encode(moments)
    close(codes, wanted["mean"].flatten(2).transpose(1, 2) * 0.2325)
    close(tokenizer.backbone.decode(tokenizer.quantiser.decode(codes)), wanted["decode_mean"])


@torch.no_grad()
def test_network(shared: Any) -> None:
    model, _, inputs, wanted = loaded(shared)
    network: Any = model.generator.network
    values = folded(inputs["imgs"])
    close(values, wanted["patchify"])
    close(KL(4, fold=2).build(8, 8).decode(values), wanted["unpatchify"])
    known, told = inputs["mask"] == 0, Condition(label=inputs["labels"])
    encoded = network.encode(values, known, told)
    there = F.pad(known, (network.buffer, 0), value=True)
    close(encoded[there].reshape(wanted["encoder"].shape), wanted["encoder"])
    close(network.observe(values, known, told), wanted["z"])
    blank, nothing = torch.zeros_like(values), torch.zeros_like(known)
    close(network.observe(blank, nothing, None), wanted["z_all_masked_uncond"])


@torch.no_grad()
def test_chains(shared: Any) -> None:
    _, _, _, wanted = golden(shared, "mar/mar")
    full = cosine_schedule(1000)
    close(full[::50], wanted["train.alphas_cumprod"])
    assert times("ddim8") == wanted["gen.timestep_map"].tolist()
    assert times("8") == wanted["gen8.timestep_map"].tolist()
    assert times("100") == wanted["gen100.timestep_map"].tolist()
    close(full[torch.tensor(times("ddim8"))], wanted["gen.alphas_cumprod"])


@torch.no_grad()
def test_head(shared: Any) -> None:
    model, _, inputs, wanted = loaded(shared)
    head: Any = model.generator.head
    x, features = inputs["net.x_t"][:, None], inputs["net.c"][:, None]
    close(head.net(x, inputs["net.t"][:, None], features)[:, 0], wanted["net.out"])
    # The authors' guided network is asked about the first half of the values at the times of both halves.
    half, c = len(x) // 2, head.channels
    time = inputs["net.t"][:, None]
    told, untold = (head.net(x[:half], time[part], features[part]) for part in (slice(half), slice(half, None)))
    noise = untold[..., :c] + 3.0 * (told[..., :c] - untold[..., :c])
    found = torch.cat([torch.cat([noise, each[..., c:]], -1)[:, 0] for each in (told, untold)])
    close(found, wanted["net.out_cfg3"])
    density = DiffusionDensity(head, features)
    for name, chain, step in (
        ("pmv", head.short, inputs["pmv.t"]),
        ("pmv8", Chain(cosine_schedule(1000), times("8")), inputs["pmv.t"].clamp(max=6)),
    ):
        step = step[:, None]
        mean, log_variance, data = chain.predict(density.output(x, step, chain), x, step)
        close(mean[:, 0], wanted[f"{name}.mean"])
        close(log_variance[:, 0], wanted[f"{name}.log_variance"])
        close(data[:, 0], wanted[f"{name}.pred_xstart"])
    features = inputs["full.z"][None]
    draws = [inputs["full.noise_init"][None], *inputs["full.noise_steps"][:, None]]
    close(DiffusionDensity(head, features).sample(Recorded(draws), 0.7)[0], wanted["diffloss.sample"])


def test_loss(shared: Any) -> None:
    model, _, inputs, wanted = loaded(shared)
    head: Any = model.generator.head
    values, mask = folded(inputs["imgs"]), inputs["mask"]
    features = model.generator.network.observe(values, mask == 0, Condition(label=inputs["labels"]))
    rows = (head.repeats, *values.shape[:2])
    step, noise = inputs["loss.t"].reshape(rows), inputs["loss.noise"].reshape(*rows, -1)
    found = [DiffusionDensity(head, features).terms(values, s, e) for s, e in zip(step, noise, strict=True)]
    error, bound = (torch.stack(part) for part in zip(*found, strict=True))
    close(error.flatten(), wanted["loss.mse_per_token"])
    close(bound.flatten(), wanted["loss.vb_per_token"])
    total = ((error + bound) * mask).sum() / (mask.sum() * head.repeats)
    close(total.reshape(1), wanted["loss"])


@torch.no_grad()
def test_sampler(shared: Any) -> None:
    model, config, inputs, wanted = loaded(shared)
    sample = config["sample"]
    # The authors keep the first tokens of their order masked the longest.
    places = torch.argsort(inputs["sample.orders"].flip(1), 1)
    order = Order(cosine_sets(model.space.n, sample["num_iter"])[places])
    draws = []
    for k in range(sample["num_iter"]):
        initial, steps = inputs[f"sample.noise_init.{k}"], inputs[f"sample.noise_steps.{k}"]
        # Noise for the unguided half of the rows, and for the last step, is drawn by the authors and not used.
        draws += [each[: len(initial)].reshape(2, order.sizes[k], -1) for each in (initial, *steps[:-1])]
    request = Request(
        Recorded(draws),
        Condition(label=inputs["sample.labels"]),
        order,
        guidance=sample["cfg"] - 1,
        options={"temperature": sample["temperature"]},
    )
    drawn = model.decoder(model.generator, request)
    assert isinstance(request.noise, Recorded) and not request.noise.draws
    found = F.pixel_shuffle(drawn.transpose(1, 2).reshape(2, -1, 4, 4), 2)
    close(found, wanted["sample_tokens"])
    assert not torch.allclose(Ancestral(ramp="constant")(model.generator, Request(Noise.of(0, 2))), drawn)
