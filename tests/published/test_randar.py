"""Authors' golden vectors of RandAR."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from parity import close, golden

import ancestral
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.errors import DataError, UnsupportedError
from ancestral.model import Model
from ancestral.noise import Noise
from ancestral.order import Order, cosine_sets
from ancestral.space import Condition


@pytest.mark.parametrize("part", ["c2i", "c2i_gqa"])
@torch.no_grad()
def test_transformer(part: str, shared: Any) -> None:
    folder, config, inputs, wanted = golden(shared, f"randar/{part}")
    model = ancestral.load_published("randar", folder / "state_dict.safetensors", config["model"])
    assert isinstance(model, Model)
    generator, n = model.generator, model.space.n
    network: Any = generator.network
    classes = config["model"]["num_classes"]
    labels = torch.where(inputs["cond_idx"] == classes, -1, inputs["cond_idx"])
    sequence = inputs["token_order"]
    close(network._turned(sequence), wanted["position_instruction_tokens"])
    angles = torch.view_as_real(network._angles(torch.arange(n), torch.arange(0), True))
    close(torch.cat([angles[:1], angles[1::2]]), wanted["freqs_cis"])
    assert torch.equal(angles[1::2], angles[2::2]), "instruction and value share their angle"
    order = Order(torch.argsort(sequence, 1))
    features = network(inputs["idx"], order, Condition(label=labels))
    logits = generator.head(features, torch.arange(n)).logits
    close(logits.gather(1, sequence[..., None].expand(-1, -1, logits.shape[-1])), wanted["logits"])
    loss = -generator.log_prob(inputs["idx"], order, Condition(label=labels)).mean()
    close(loss.reshape(1), wanted["loss"])
    # Scores found step by step are those of one pass, with sets of several sites too.
    half = torch.where(torch.arange(n) < n // 2, 0, 1)
    close(network(inputs["idx"], Order(half), None), _stepwise(network, inputs["idx"], Order(half)))

    for name, settings in config["greedy"].items():
        passes = settings["num_inference_steps"]
        low, high = settings["cfg_scales"]
        assert low == high or low == 1
        decoder = Ancestral(ramp="constant" if low == high else "before")
        for item, sequence in enumerate(inputs["gen_order"]):
            # Sites of one set follow each other by number here and as drawn there: number them as drawn.
            found = decoder(
                _renumbered(generator, sequence),
                Request(
                    Noise.of(0, 1),
                    Condition(label=inputs["gen_cond"][item : item + 1]),
                    Order(cosine_sets(n, n if passes == -1 else passes)),
                    guidance=high - 1,
                    options={"temperature": 0.0},
                ),
            )[0]
            assert torch.equal(found, wanted[f"greedy.{name}"][item, sequence]), name


def _renumbered(generator: Any, sequence: torch.Tensor) -> Any:
    """The same model, whose k-th site stands where ``sequence[k]`` stood."""
    found = copy.deepcopy(generator)
    rotation = found.network.rotation
    rotation.turn = rotation.turn[sequence]
    return found


def _stepwise(network: Any, values: torch.Tensor, order: Order) -> torch.Tensor:
    cache, out = network.start(len(values), order), torch.zeros(*values.shape, network.width)
    last = None
    for sites in order.sets:
        out[:, sites] = network.step(cache, last)
        last = values[:, sites]
    return out


def test_without_its_tokenizer_there_are_codes_but_no_images(shared: Any) -> None:
    folder, config, _, _ = golden(shared, "randar/c2i")
    model = ancestral.load_published("randar", folder / "state_dict.safetensors", config["model"])
    assert isinstance(model, Model)
    drawn = model.decoder(model.generator, Request(Noise.of(0, 2), Condition(label=torch.tensor([1, 2]))))
    assert drawn.shape == (2, 16)
    with pytest.raises(UnsupportedError, match="without its tokenizer"):
        model.sample(1)
    with pytest.raises(DataError, match="class-conditional"):
        ancestral.load_published("randar", {}, {**config["model"], "model_type": "t2i"})
