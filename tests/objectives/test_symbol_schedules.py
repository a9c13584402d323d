"""GenMD4's learned schedules: one hidden site has a bound that can be written down."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.decoders import Request
from ancestral.decoding.unmasking import Unmasking
from ancestral.heads.base import Finite
from ancestral.laws import Exam
from ancestral.laws.chances import chi_square
from ancestral.noise import Noise
from ancestral.objectives import SymbolSchedules
from ancestral.recipes.registry import catalogue
from ancestral.space import Condition, Space

MANY = 1 << 17


def alone(logits: torch.Tensor) -> Any:
    """A generator of one site whose network says ``logits`` while it is hidden."""
    space = Space(shape=(1,), sizes=len(logits))
    return SimpleNamespace(
        space=space, observe=lambda values, known, condition=None: Finite(logits.expand(len(values), 1, -1))
    )


def schedules(exponents: list[float]) -> SymbolSchedules:
    found = SymbolSchedules(smallest=1e-6).build(Space(shape=(1,), sizes=len(exponents)))
    found.raw.data = torch.log(torch.expm1(torch.tensor(exponents)))
    return found


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(1.2, 3.0), min_size=2, max_size=4), st.integers(0, 3))
def test_bound_of_one_site(exponents: list[float], symbol: int) -> None:
    symbol %= len(exponents)
    logits = torch.linspace(-1, 1, len(exponents))
    generator, objective = alone(logits), schedules(exponents)
    mu, w = logits.softmax(0), objective.exponents.detach()
    with torch.no_grad():
        values = torch.full((MANY, 1), symbol)
        value = objective.loss(generator, values, Condition(), Noise.of(3, MANY), 1.0)
    exact = -mu[symbol].log() - 1 + (w * mu).sum() / w[symbol]
    # A masking contributes (w exact) / t where hidden, with chance t ** w: variance (w exact) ** 2 / (w - 1) at most.
    spread = float(w[symbol] * exact / (w[symbol] - 1).sqrt()) / (2 * MANY) ** 0.5
    assert abs(float(value - exact)) < 5 * spread + 1e-4
    # A rate of w_v mu_v makes v the value with chance w_v mu_v / sum: the bound never claims more than that.
    assert float(exact) >= -float(torch.log(w[symbol] * mu[symbol] / (w * mu).sum())) - 1e-6


def test_gradient_of_the_exponents_is_unbiased() -> None:
    logits = torch.tensor([0.3, -0.2, 0.6])
    generator, objective = alone(logits), schedules([0.7, 1.2, 2.0])
    values = torch.full((MANY, 1), 1)
    grads = []
    for seed in range(8):
        objective.zero_grad()
        objective.loss(generator, values, Condition(), Noise.of(seed, MANY), 1.0).backward()
        assert objective.raw.grad is not None
        grads.append(objective.raw.grad.clone())
    found = torch.stack(grads)
    raw = objective.raw.detach().clone().requires_grad_()
    w, mu = torch.nn.functional.softplus(raw), logits.softmax(0)
    (-1 + (w * mu).sum() / w[1]).backward()
    assert raw.grad is not None
    error = found.std(0) / len(grads) ** 0.5
    assert ((found.mean(0) - raw.grad).abs() < 5 * error + 2e-3).all()


@pytest.fixture(scope="module")
def learned() -> Exam:
    class Learned(Exam):
        def fit(self, dataset: Any = None, **options: Any) -> Any:
            chosen = {"batch_size": 32, "validation": 0, "quiet": True, "lr": 3e-2, "ema": None, **options}
            return self.recipe(**{**self.recipe.tiny, "alpha": "learned"}).fit(self.dataset, **chosen)

    return Learned(catalogue()["md4"], steps=60)


def test_exponents_are_learned_and_saved(learned: Exam, tmp_path: Any) -> None:
    import ancestral

    objective = learned.generator.objective
    assert isinstance(objective, SymbolSchedules)
    assert float(objective.exponents.detach().std()) > 1e-3
    learned.model.save(tmp_path / "model")
    again = ancestral.load(tmp_path / "model")
    assert torch.equal(again.generator.objective.exponents, objective.exponents)
    assert np.array_equal(again.sample(4, seed=1), learned.model.sample(4, seed=1))


def test_equal_exponents_are_the_linear_schedule(learned: Exam) -> None:
    generator, count = learned.generator, 1 << 15
    n, item = generator.space.n, learned.items[:1]
    plain = SymbolSchedules().build(generator.space)
    times = torch.linspace(plain.smallest, 1, 20001, dtype=torch.float64)
    mean, square = 0.0, 0.0  # over all maskings, each weighed by its chance at time t
    with torch.no_grad():
        for bits in itertools.product([False, True], repeat=n):
            hidden = torch.tensor(bits)
            h = int(hidden.sum())
            own = -float(generator.observe(item, ~hidden[None]).log_prob(item)[0, hidden].sum())
            chance = times**h * (1 - times) ** (n - h)
            mean += float(torch.trapezoid(chance * own / times, times))
            square += float(torch.trapezoid(chance * (own / times) ** 2, times))
        found = plain.loss(generator, item.expand(count, -1), Condition(), Noise.of(1, count), 1.0)
    error = (square / count) ** 0.5 / n
    assert abs(float(found) - mean / n) < 4 * error


def test_bound_is_below_what_the_sampler_draws(learned: Exam) -> None:
    generator, objective = learned.generator, learned.generator.objective
    drawn = Unmasking(80, "learned")(generator, Request(Noise.of(5, 4000)))
    for item in learned.everything[:: max(1, len(learned.everything) // 8)]:
        share = float((drawn == item).all(1).double().mean())
        if share * len(drawn) < 50:
            continue
        with torch.no_grad():
            losses = [
                float(objective.loss(generator, item.expand(1024, -1), Condition(), Noise.of(9, 1024, 1024 * g), 1.0))
                for g in range(8)
            ]
        bound = -float(np.mean(losses)) * generator.space.scalars
        error = 5 * (np.std(losses) * generator.space.scalars / 8**0.5 + (1 / (share * len(drawn))) ** 0.5)
        assert bound <= np.log(share) + error


def test_equal_exponents_draw_like_the_linear_schedule(learned: Exam) -> None:
    generator = learned.generator
    trained = generator.objective.raw.data.clone()
    generator.objective.raw.data.fill_(float(np.log(np.expm1(1.0))))
    fine = Unmasking(40, "learned")(generator, Request(Noise.of(7, 1000)))
    many = Unmasking(40, "linear")(generator, Request(Noise.of(8, 10000)))
    generator.objective.raw.data.copy_(trained)
    counts = torch.stack([(many == item).all(1).double().mean() for item in learned.everything]) + 1e-6
    assert chi_square(fine, learned.everything, counts / counts.sum()) > 1e-3


def test_no_schedules_were_learned() -> None:
    with pytest.raises(ValueError, match="learned no schedules"):
        Unmasking(3, "learned")(Exam(catalogue()["md4"]).generator, Request(Noise.of(1, 2)))
