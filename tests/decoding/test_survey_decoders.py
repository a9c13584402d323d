"""The decoders that the surveys compare: guesses, retrieval, typical acceptance, early exit, mask-predict."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.drafts import Draft, EarlyLayers
from ancestral.decoding.exits import ConfidentExit
from ancestral.decoding.guesses import Jacobi, Retrieval
from ancestral.decoding.relaxed import Typical
from ancestral.decoding.speculative import Speculative
from ancestral.decoding.tracks import early_exit
from ancestral.decoding.unmasking import MaskPredict
from ancestral.decoding.walk import Draw
from ancestral.errors import UnsupportedError
from ancestral.evaluation.decoders import follows
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.laws import chi_square
from ancestral.networks import CausalTransformer, MaskedTransformer, Recurrent
from ancestral.noise import Noise
from ancestral.order import Order, RandomMasks
from ancestral.recipes.registry import find
from ancestral.recipes.toys import enumerate_values
from ancestral.space import Space

N, K = 6, 3


def built(seed: int = 0, depth: int = 3, **space: int) -> Generator:
    torch.manual_seed(seed)
    made = Generator(CausalTransformer(16, depth, 2), Categorical(), "raster").build(Space((N,), K, **space)).eval()
    made.head.weight.data.mul_(4)
    return made


DRAFTS: dict[str, Draft] = {
    "Jacobi": Jacobi(),
    "retrieval": Retrieval(torch.tensor([0, 1, 2, 2, 1, 0, 0, 2] * 4), 2),
    "early layers": EarlyLayers(1),
}


@pytest.mark.parametrize("name", DRAFTS)
def test_drafts_leave_the_distribution_and_the_greedy_values_alone(name: str) -> None:
    made, ahead = built(depth=2), 3
    order = made.order.scoring()
    cells = enumerate_values(made.space, order)
    with torch.no_grad():
        table = made.log_prob(cells, order).double().sum(1).exp()
    decoder = Speculative(DRAFTS[name], ahead)
    drawn = decoder(made, Request(Noise.of(1, 400)))
    assert chi_square(drawn, cells, table) > 1e-3
    assert decoder.report.accepted > 0
    greedy = {"options": {"temperature": 0}}
    assert torch.equal(
        Speculative(DRAFTS[name], ahead)(made, Request(Noise.of(0, 2), **greedy)),
        Ancestral()(made, Request(Noise.of(0, 2), **greedy)),
    )


def test_guesses_reach_the_fixed_point_in_fewer_passes_than_symbols() -> None:
    """Of a model that repeats itself the guesses of the last pass come true."""
    made = built()
    with torch.no_grad():
        made.head.bias[:, 1] = 50.0
    decoder = Speculative(Jacobi(), ahead=N)
    values = decoder(made, Request(Noise.of(0, 1), options={"temperature": 0}))
    assert values.tolist() == [[1] * N] and decoder.report.passes <= 3


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.integers(0, 3), min_size=4, max_size=60),
    asked=st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_retrieval_finds_all_places(text: list[int], asked: list[int]) -> None:
    size = len(asked)
    source = Retrieval(torch.tensor(text), size)
    expected = [i + size for i in range(len(text) - size) if text[i : i + size] == asked]
    assert source.find(np.array(asked)).tolist() == expected


def test_typical_values_are_taken_and_others_tested() -> None:
    relax = Typical(epsilon=0.09, delta=0.3).start(built())
    sure = torch.tensor([0.9, 0.08, 0.02], dtype=torch.float64)
    assert relax(sure, 0).tolist() == [1, 0, 0]
    assert relax(sure, 1).tolist() == sure.tolist()  # 0.08 is below both bounds
    flat = torch.full((100,), 0.01, dtype=torch.float64)
    assert 0.3 * math.exp(-math.log(100)) < 0.01
    assert relax(flat, 7).argmax() == 7 and relax(flat, 7).sum() == 1


@pytest.mark.parametrize("known", [0, 2])
def test_a_network_that_is_never_left_draws_as_it_always_does(known: int) -> None:
    made = built()
    given_values = torch.randint(0, K, (4, N), generator=torch.Generator().manual_seed(0))

    def request() -> Request:
        shown = (torch.arange(N) < known).expand(4, N)
        return Request(Noise.of(3, 4), given=given_values, known=shown, options={"temperature": 0.9})

    decoder = ConfidentExit((1, 2), threshold=1.1)
    assert torch.equal(decoder(made, request()), Ancestral()(made, request()))
    assert decoder.report.layers_per_site == made.network.depth


def test_a_network_that_is_always_left_draws_from_its_first_layers() -> None:
    made = built()
    decoder = ConfidentExit((1,), threshold=0.0)
    values = decoder(made, Request(Noise.of(3, 5)))
    assert decoder.report.layers == 5 * (made.network.depth + (N - 1))  # the first symbol comes with what is known
    noise, first = Noise.of(3, 5), early_exit(made, 1)
    with torch.no_grad():
        for k in range(N):
            leaf = (first if k else made).predict(values, made.order.scoring())
            found = Draw(noise)(type(leaf)(*(p[:, k : k + 1] if i == 0 else p for i, p in enumerate(leaf.parts[:3])),
                                           torch.tensor([k])), None, None)  # fmt: skip
            assert torch.equal(found[:, 0], values[:, k])


def test_layers_left_out_can_be_looked_back_at() -> None:
    """Sites before have keys at every depth, so that a deep site behind shallow ones sees them all."""
    made = built()
    decoder = ConfidentExit((1,), threshold=0.5)
    decoder(made, Request(Noise.of(0, 40)))
    assert 1 < decoder.report.layers_per_site < made.network.depth
    with pytest.raises(UnsupportedError, match="causal transformer"):
        other = Generator(Recurrent(8, 1), Categorical(), "raster").build(Space((3,), 2))
        ConfidentExit()(other, Request(Noise.of(0, 1)))


def test_a_sequence_ends_where_it_draws_its_stop() -> None:
    made = built(stop=K - 1)
    values = ConfidentExit((1,), 0.3)(made, Request(Noise.of(1, 60)))
    stopped = values == K - 1
    assert bool(stopped.any()) and bool((stopped.long().cummax(1).values == stopped.long()).all())
    assert torch.equal(
        ConfidentExit((1,), 1.1)(made, Request(Noise.of(1, 60))), Ancestral()(made, Request(Noise.of(1, 60)))
    )


def masked() -> Generator:
    torch.manual_seed(0)
    made = Generator(MaskedTransformer(16, 1, 2), Categorical(), RandomMasks()).build(Space((N,), K)).eval()
    made.head.weight.data.mul_(4)
    return made


def test_mask_predict_draws_the_doubtful_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = masked()
    given_values = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 0, 0, 1, 1]])
    known = torch.tensor([[True, True, False, False, False, False]]).expand(2, N)
    seen: list[torch.Tensor] = []
    observe = made.network.observe

    def watched(values: torch.Tensor, shown: torch.Tensor, condition: object = None) -> torch.Tensor:
        seen.append(shown.clone())
        return observe(values, shown, condition)

    monkeypatch.setattr(made.network, "observe", watched)
    request = Request(Noise.of(0, 2), given=given_values, known=known, options={"temperature": 0})
    values = MaskPredict(4)(made, request)
    assert torch.equal(values[:, :2], given_values[:, :2])
    assert [int((~shown[0]).sum()) for shown in seen] == [4, 3, 2, 1]
    assert all(bool((shown | ~known).all()) or bool(shown[known].all()) for shown in seen)
    seen.clear()
    with torch.no_grad():
        first = made.observe(given_values, known)
        best = first.log_probs().argmax(-1)
        doubt = first.log_prob(best)
    once = MaskPredict(1)(made, request)
    assert torch.equal(once[:, 2:], best[:, 2:])
    seen.clear()
    MaskPredict(2)(made, request)
    for row in range(2):
        again = [int(site) for site in torch.nonzero(~seen[1][row])[:, 0]]
        assert again == sorted((2 + doubt[row, 2:].argsort()[:2]).tolist())
    with pytest.raises(UnsupportedError, match="guidance"):
        MaskPredict(2)(made, Request(Noise.of(0, 1), guidance=1.0))


def test_texts_that_do_not_follow_the_model_are_found_out() -> None:
    model = find("gpt")(width=16, depth=2, heads=2, length=24)
    model.fit(["It was a dark and stormy night. " * 20], steps=30, quiet=True)
    assert follows(model, Ancestral(), "It was", 400) > 1e-3
    assert follows(model, Speculative(EarlyLayers(1)), "It was", 150, seed=1) > 1e-3

    def cold(generator: Generator, request: Request) -> torch.Tensor:
        return Ancestral()(generator, replace(request, options={"temperature": 0.3}))

    assert follows(model, cold, "It was", 400) < 1e-3


def test_drafts_that_need_single_sites_say_so() -> None:
    with pytest.raises(UnsupportedError, match="single sites"):
        Jacobi().start(built(), Order.single(3), None, {})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match="single sites"):
        DRAFTS["retrieval"].start(built(), Order.single(3), None, {})  # type: ignore[arg-type]
