"""Drafts pruned from the model that they draft for: what is left out, and that it is the least important."""

from __future__ import annotations

import math

import pytest
import torch

import ancestral
from ancestral.decoding.drafts import SmallModel
from ancestral.decoding.pruning import (
    agreement,
    calibration,
    frequencies,
    least_turning,
    most_frequent,
    pruned,
    smaller,
    turning,
)
from ancestral.decoding.speculative import Speculative
from ancestral.decoding.tracks import Track
from ancestral.errors import UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical, GaussianMixture
from ancestral.heads.subset import SomeFinite, Subset
from ancestral.networks import CausalTransformer, LanguageTransformer, Recurrent
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.quantisation import Quantised, QuantisedLinear
from ancestral.space import Space


def built(depth: int = 4, space: Space | None = None, per_site: bool = False) -> Generator:
    torch.manual_seed(0)
    network = LanguageTransformer(16, depth, 4, 2, tied=False)
    head = Categorical(per_site=per_site)
    made = Generator(network, head).build(space or Space((8,), 11)).eval()
    for weight in made.head.parameters():
        weight.data.normal_()
    return made


def idle(generator: Generator, *numbers: int) -> Generator:
    """The same model, whose layers ``numbers`` pass on what they are given."""
    assert isinstance(generator.network, CausalTransformer)
    for number in numbers:
        block = generator.network.blocks[number]
        for weight in (block.out.weight, block.mlp.outer.weight):
            weight.data.zero_()
    return generator


def shown(generator: Generator, count: int = 6) -> list[tuple[torch.Tensor, Order, torch.Tensor]]:
    space = generator.space
    values = torch.randint(0, space.largest, (count, space.n), generator=torch.Generator().manual_seed(1))
    return [(values, generator.order.scoring(), torch.ones(values.shape, dtype=torch.bool))]


@pytest.mark.parametrize("numbers", [(1, 2), (2, 3)])
def test_layers_that_do_nothing_are_left_out_first(numbers: tuple[int, int]) -> None:
    target = idle(built(), *numbers)
    found = turning(target, shown(target))
    torch.testing.assert_close(found, found.T)
    assert float(found[numbers[0], numbers[1] + 1]) < 1e-3 < float(found[0, 1])
    drop = least_turning(found, 2)
    assert tuple(drop) == numbers
    draft = smaller(target, drop)
    values = shown(target)[0][0]
    torch.testing.assert_close(draft.log_prob(values), target.log_prob(values), atol=1e-5, rtol=0)
    assert agreement(target, draft, shown(target)) == (pytest.approx(1, abs=1e-5), 1)
    with pytest.raises(UnsupportedError, match="choose 1 to 3"):
        least_turning(found, 4)


@torch.no_grad()
def test_turning_is_the_angle_between_states() -> None:
    target = built(1)
    values, order, counts = shown(target, 1)[0]
    counts[:, 1:] = False
    network = target.network
    before = network.inputs(values, order, None, 0, 8)[0, 0]
    block = network.blocks[0]
    q, k, v = block.project(before[None, None], network.rotation(torch.zeros(1, dtype=torch.int64)))
    after = block.finish(before[None, None], block.attend(q, k, v))[0, 0]
    angle = math.acos(float(torch.cosine_similarity(before, after, dim=0))) / math.pi
    assert float(turning(target, [(values, order, counts)])[0, 1]) == pytest.approx(angle, abs=1e-4)


@pytest.mark.parametrize("per_site", [False, True])
@torch.no_grad()
def test_the_head_gives_its_symbols_what_they_had_of_each_other(per_site: bool) -> None:
    target = built(per_site=per_site)
    symbols = torch.tensor([7, 2, 5])
    draft = smaller(target, (), symbols)
    (values, order, _), sites = shown(target)[0], torch.arange(8)
    features = target.network(values, order, None)
    found, whole = draft.head(features, sites), target.head(features, sites).log_probs()
    assert isinstance(found, SomeFinite) and isinstance(draft.head, Subset)
    expected = torch.full_like(whole, float("-inf"))
    expected[..., symbols] = torch.log_softmax(whole[..., symbols], -1)
    torch.testing.assert_close(found.log_probs(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.log_softmax(found.logits, -1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.log_prob(values), expected.gather(-1, values[..., None])[..., 0])
    drawn = found.draw(Noise.of(0, len(values)))
    assert set(drawn.flatten().tolist()) == {2, 5, 7}
    shares = agreement(target, draft, shown(target))
    p = whole.exp()
    assert shares[0] == pytest.approx(float(torch.minimum(p, expected.exp()).sum(-1).mean()), abs=1e-5)
    track = Track(draft, draft.order.scoring())
    few, many = track.known_log_probs(values[:1], 0, 2), track.log_probs(values[:1], 0, 2)
    assert few[0].shape == (1, 1, 3) and many[0].shape == (1, 1, 11)
    torch.testing.assert_close(few[1], many[1][..., [2, 5, 7]], atol=1e-5, rtol=0)


@torch.no_grad()
def test_frequencies_are_the_models_own() -> None:
    target = built()
    p = target.head(target.network(*shown(target)[0][:2], None), torch.arange(8)).log_probs().exp()
    found = frequencies(target, shown(target))
    torch.testing.assert_close(found, p.double().mean((0, 1)), atol=1e-6, rtol=0)
    kept = most_frequent(found, 4)
    assert kept.tolist() == sorted(found.topk(4).indices.tolist())
    assert most_frequent(found, 11).tolist() == list(range(11))
    for count in (0, 12):
        with pytest.raises(UnsupportedError, match="between 1 and 11"):
            most_frequent(found, count)


def test_what_is_left_is_shared_and_the_rest_rounded() -> None:
    target = built()
    draft = smaller(target, range(1, 3), torch.arange(0, 11, 2), bits=8)
    assert len(draft.network.blocks) == draft.network.depth == 2 and len(target.network.blocks) == 4
    assert draft.network.embed.table.weight is target.network.embed.table.weight  # all symbols are still read
    assert isinstance(draft.head, Subset) and isinstance(draft.head.linear, QuantisedLinear)
    assert isinstance(draft.network.blocks[1].qkv, QuantisedLinear)
    assert not any(isinstance(m, Quantised) for m in target.modules())
    plain = smaller(target, [0])
    assert plain.network.blocks[0] is target.network.blocks[1] and plain.head is target.head


def test_a_models_draft_from_its_own_texts_or_others() -> None:
    text = "the river runs past the mill and the mill runs on the river. " * 20
    model = ancestral.fit([text], recipe="llama", steps=30, width=32, depth=3, length=32, quiet=True)
    for data in (None, [text[:90], text[:40]]):
        draft = pruned(model, data, layers=1, vocabulary=12, texts=4, length=24)
        assert isinstance(draft, SmallModel) and draft.generator.network.depth == 2
        assert len(draft.generator.head.symbols) == 12
        decoder = Speculative(draft, ahead=3)
        plain, drafted = (
            model.complete(["the river "], length=20, temperature=0, decoder=each) for each in (None, decoder)
        )
        assert plain == drafted
        assert decoder.report.acceptance > 0
    places = sum(int(counts.sum()) for _, _, counts in calibration(model, [text[:90], text[:40]]))
    assert places == 130
    assert {order.n for _, order, _ in calibration(model, texts=4, length=24)} == {24}


def test_sequences_count_up_to_their_end() -> None:
    model = ancestral.fit(
        ["ab", "abab", "ba"] * 8, recipe="gpt", steps=5, width=16, depth=2, quiet=True, streaming=False
    )
    for data, places in ((["ab", "abab"], 3 + 5), (None, None)):
        rows = list(calibration(model, data, texts=5))
        assert all(counts[:, 0].all() for _, _, counts in rows)
        if places is not None:
            assert sum(int(counts.sum()) for _, _, counts in rows) == places
    assert isinstance(pruned(model, vocabulary=3, bits=None, texts=5).generator.head, Subset)


def test_what_cannot_be_pruned_is_refused() -> None:
    torch.manual_seed(0)
    recurrent = Generator(Recurrent(16, 1), Categorical()).build(Space((3,), 4)).eval()
    with pytest.raises(UnsupportedError, match="layers of a Recurrent"):
        smaller(recurrent, [0])
    apart = Generator(CausalTransformer(16, 2), Categorical()).build(Space((2,), (3, 4))).eval()
    with pytest.raises(UnsupportedError, match="one linear map for all sites"):
        smaller(apart, (), torch.tensor([0]))
    real = Generator(CausalTransformer(16, 2), GaussianMixture(2)).build(Space((3,), 0, event=(1,))).eval()
    with pytest.raises(UnsupportedError, match="GaussianMixture"):
        smaller(real, (), torch.tensor([0]))
    numbers = (torch.zeros(1, 3, 1), Order.raster(3), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(UnsupportedError, match="one finite value"):
        frequencies(real, [numbers])
