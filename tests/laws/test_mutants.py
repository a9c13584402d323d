"""The laws can fail: parts that are broken on purpose are caught, each by the law that is there for it."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from ancestral.decoding.decoders import Ancestral
from ancestral.errors import DataError
from ancestral.heads.base import Finite
from ancestral.heads.categorical import LinearFinite
from ancestral.laws import LAWS, Exam, check, chi_square, examine
from ancestral.networks.transformer import KeyValues
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.recipes.registry import catalogue
from ancestral.recipes.toys import TOYS, enumerate_values, toy
from ancestral.space import Space


@pytest.fixture
def exam() -> Exam:
    return Exam(catalogue()["any-order"], steps=10)


def fails(exam: Exam, law: str, words: str) -> None:
    result = examine(exam, law)
    assert result.status == "failed", f"{law} did not notice"
    assert words in result.detail, result.detail


def test_peeking_network(exam: Exam) -> None:
    network = exam.generator.network
    inner = network.forward

    def peek(values: Any, order: Any, condition: Any = None) -> Any:
        sites = torch.arange(values.shape[1])
        return inner(values, order, condition) + 1e-4 * network.embed(values, sites)

    network.forward = peek
    fails(exam, "causality", "derivative")


def test_peeking_past_the_embedding(exam: Exam) -> None:
    network = exam.generator.network
    inner = network.forward
    network.forward = lambda v, o, c=None: inner(v, o, c) + 1e-3 * v.float().mean(1)[:, None, None]
    fails(exam, "causality", "move by")


def test_inputs_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single-stream network that is fed the very value it shall predict."""
    exam = Exam(catalogue()["rar"], steps=10)
    feed = Order.feed.func
    monkeypatch.setattr(Order, "feed", property(lambda self: torch.where(feed(self) >= 0, feed(self) + 1, -1)))
    fails(exam, "causality", "derivative")


def test_sets_that_see_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sites drawn together that see each other's values."""
    exam = Exam(catalogue()["neighboring-ar"], steps=10)
    network = exam.generator.network
    inner = network.forward

    def smear(values: Any, order: Any, condition: Any = None) -> Any:
        own = network.embed(values, torch.arange(4)).repeat(1, 1, 2)
        features = inner(values, order, condition)
        features[:, 1] = features[:, 1] + 1e-3 * own[:, 2]
        return features

    network.forward = smear
    fails(exam, "causality", "features of site 1")


def test_network_that_sees_nothing(exam: Exam) -> None:
    network = exam.generator.network
    inner = network.forward
    network.forward = lambda v, o, c=None: inner(v, o, c) * 0 + inner(v * 0, o, c).detach()
    fails(exam, "causality", "no site's features depend")


def test_cache_that_forgets(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    append = KeyValues.append

    def forget(self: KeyValues, k: Any, v: Any) -> Any:
        keys, values = append(self, k, v)
        return keys[:, :, -2:], values[:, :, -2:]

    monkeypatch.setattr(KeyValues, "append", forget)
    fails(exam, "incremental", "step by step")


def test_cache_shared_by_passes(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and values that belong to the layer rather than to the pass."""
    made = itertools.count()
    pool: dict[Any, Any] = {}

    def share(self: KeyValues, like: Any, capacity: int) -> None:
        b, h, _, e = like.shape
        layer = next(made) % 2
        self.k, self.v = pool.setdefault(
            (layer, b, capacity), (like.new_empty(b, h, capacity, e), like.new_empty(b, h, capacity, e))
        )
        self.length = 0

    monkeypatch.setattr(KeyValues, "__init__", share)
    fails(exam, "incremental", "differ by")


def test_unnormalised_head(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    log_prob = LinearFinite.log_prob
    monkeypatch.setattr(LinearFinite, "log_prob", lambda self, values: log_prob(self, values) - 1.0)
    fails(exam, "normalisation", "sum to")


def test_normalised_to_a_thousandth(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    log_prob = LinearFinite.log_prob
    monkeypatch.setattr(LinearFinite, "log_prob", lambda self, values: log_prob(self, values) - 1e-4)
    fails(exam, "normalisation", "sum to")


def test_sharpened_samples(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    from ancestral.decoding.walk import Draw

    adjust = Draw.adjust
    monkeypatch.setattr(Draw, "plain", False)
    monkeypatch.setattr(Draw, "adjust", lambda self, x: adjust(self, x * 1.3))
    fails(exam, "sampling", "do not follow the scores")
    fails(exam, "completion", "Bayes")


def test_code_from_other_probabilities(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = exam.generator.head.forward

    def flat(features: Any, sites: Any) -> Finite:
        found = inner(features, sites)
        return found if sites.dim() == 1 and len(sites) == exam.generator.space.n else Finite(found.logits * 0.3)

    exam.generator.head.forward = flat
    fails(exam, "coding", "bits where")


def test_decoder_that_loses_what_is_known(exam: Exam) -> None:
    class Careless:
        def __call__(self, generator: Any, request: Any) -> Any:
            request.known = request.given = None
            return Ancestral()(generator, request)

    exam.model.decoder = Careless()
    fails(exam, "completion", "changes a known site")


def test_completion_that_ignores_what_is_known(exam: Exam) -> None:
    network = exam.generator.network
    start = network.start

    def ignore(batch: int, order: Any, condition: Any = None, values: Any = None, known_sets: int = 0) -> Any:
        return start(batch, order, condition, None if values is None else values * 0, known_sets)

    network.start = ignore
    fails(exam, "completion", "Bayes")


def test_scores_that_depend_on_the_batch(exam: Exam) -> None:
    network = exam.generator.network
    inner = network.forward

    def normalise(v: Any, o: Any, c: Any = None) -> Any:
        features = inner(v, o, c)
        return features - 0.1 * features.mean(0, keepdim=True)

    network.forward = normalise
    fails(exam, "batches", "in another batch")


def test_samples_from_the_global_generator(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "uniform", lambda self, *s: torch.rand(self.batch, *s, dtype=torch.float64))
    fails(exam, "batches", "drawn alone")


def test_bound_of_the_wrong_weight(exam: Exam) -> None:
    broken = Exam(catalogue()["ardm"], steps=10)
    objective = broken.generator.objective

    class Doubled(type(objective)):  # type: ignore[misc]
        def loss(self, *a: Any) -> Any:
            return super().loss(*a) * 0.9

    broken.generator.objective = Doubled()
    fails(broken, "bounds", "training loss")


def test_bound_that_is_a_maximum(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = exam.generator.log_prob

    def flatter(values: Any, order: Any = None, condition: Any = None) -> Any:
        each = inner(values, order, condition)
        return each * 0.8 if order is not None and order.batched else each

    exam.generator.log_prob = flatter  # type: ignore[method-assign]
    fails(exam, "bounds", "bound=64")


OUTSIDE = '''
from __future__ import annotations
import os
from ancestral.heads import Categorical
from ancestral.model import Model
from ancestral.networks import CausalTransformer
from ancestral.objectives import Likelihood
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Pixels

{extra}

@recipe("mine", title="Mine", tiny=dict(width=16), toy="grid", claim=Claim("works"){record})
def mine(width: int = 32) -> Model:
    """A model of mine."""
    return Model(Pixels(), "raster", {network}, Categorical(), objective={objective})
'''

FORGETFUL = """
class Forgetful(CausalTransformer):
    def build(self, space):
        super().build(space)
        self.scale = 1.0 + int.from_bytes(os.urandom(2), "little") / 65536  # neither a parameter nor a buffer
        return self
    def mix(self, *a):
        features, state = super().mix(*a)
        return features * self.scale, state
"""

COUNTING = """
class Counting(Likelihood):
    def __init__(self):
        self.count = 0  # not in the checkpoint
    def loss(self, *a):
        self.count += 1
        return super().loss(*a) * (1 + 0.1 * self.count)
"""


def outside(
    folder: Path,
    extra: str = "",
    network: str = "CausalTransformer(width, 1)",
    objective: str = "None",
    record: str = "",
) -> Path:
    file = folder / "mine.py"
    text = OUTSIDE.format(extra=textwrap.dedent(extra), network=network, objective=objective, record=record)
    file.write_text(text)
    return file


def test_outside_file_passes(tmp_path: Path) -> None:
    results = check(outside(tmp_path))
    assert [r.name for r in results] == list(LAWS)
    assert {r.status for r in results} <= {"ok", "not applicable"}, results


def test_state_that_is_not_saved(tmp_path: Path) -> None:
    (result,) = check(outside(tmp_path, FORGETFUL, "Forgetful(width, 1)"), ("saving",))
    assert result.status == "failed" and "other scores" in result.detail


def test_state_that_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    (result,) = check(outside(tmp_path, COUNTING, objective="Counting()"), ("resume",))
    assert result.status == "failed" and "resumed run" in result.detail


def test_declared_failures(tmp_path: Path) -> None:
    declared = ', xfail={"saving": "it forgets"}'
    (result,) = check(outside(tmp_path, FORGETFUL, "Forgetful(width, 1)", record=declared), ("saving",))
    assert result.status == "xfail"
    (tmp_path / "fine").mkdir()
    (result,) = check(outside(tmp_path / "fine", record=declared), ("saving",))
    assert result.status == "failed" and "drop the xfail" in result.detail
    with pytest.raises(DataError, match="there is no law 'savings'"):
        check(outside(tmp_path, record=', xfail={"savings": "typo"}'))


def test_chi_square_tells_distributions_apart() -> None:
    cells = enumerate_values(Space((2,), 3))
    p = torch.softmax(torch.arange(9.0) / 3, 0)
    generator = torch.Generator().manual_seed(0)
    good = cells[torch.multinomial(p, 4000, True, generator=generator)]
    assert chi_square(good, cells, p) > 1e-2
    assert chi_square(good, cells, p.flip(0)) < 1e-12
    assert chi_square(good, cells, torch.softmax(torch.arange(9.0) / 2.5, 0)) < 1e-3
    assert chi_square(good + 1, cells, p) == 0.0  # not a possible item


@pytest.mark.parametrize("name", TOYS)
def test_toys_have_structure(name: str) -> None:
    """Sites depend on each other, so that a model of independent sites would not do."""
    dataset = toy(name)
    again = toy(name)
    assert len(dataset) == 256 and len(toy(name, 32)) == 32
    exam = Exam(next(r for r in catalogue().values() if r.toy == "grid"))
    assert exam.recipe.toy == "grid"
    assert repr(dataset) == repr(again)


def test_enumeration() -> None:
    assert len(enumerate_values(Space((2, 2), 3))) == 81
    assert enumerate_values(Space((2,), (2, 3))).tolist() == [[i, j] for i in range(2) for j in range(3)]
    assert len(enumerate_values(Space((3,), 3, stop=2))) == 2**3 + 2**2 + 2 + 1
    assert enumerate_values(Space((2,), 2, event=(2,))).shape == (16, 2, 2)
    with pytest.raises(DataError, match="too many"):
        enumerate_values(Space((8, 8), 17))
    with pytest.raises(DataError, match="real values"):
        enumerate_values(Space((2,), 0))
