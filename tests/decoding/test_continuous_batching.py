"""Continuous batching: streams that come and go are drawn as if each were alone."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.decoding.continuous import Continuous, Engine, Job
from ancestral.decoding.decoders import Ancestral, Request
from ancestral.decoding.streams import continue_streams
from ancestral.errors import DataError, UnsupportedError
from ancestral.generator import Generator
from ancestral.heads import Categorical
from ancestral.networks import CausalTransformer, Mamba, MaskedTransformer, QueryTransformer, Recurrent
from ancestral.networks.language import LanguageTransformer
from ancestral.networks.slots import KeyValueSlots, slots
from ancestral.noise import Noise
from ancestral.order import Order
from ancestral.recipes.registry import find
from ancestral.space import Condition, Space

N, K = 10, 7

NETWORKS = {
    "causal": lambda: CausalTransformer(16, 2, 2),
    "causal, told at the first place": lambda: CausalTransformer(16, 2, 2, prefix=True),
    "shared heads": lambda: LanguageTransformer(16, 2, 4, 2),
    "learned positions": lambda: LanguageTransformer(16, 2, 2, gated=False, bias=("qkv", "out", "mlp")),
    "query stream": lambda: QueryTransformer(16, 1, 2),
    "masked": lambda: MaskedTransformer(16, 1, 2),
    "state space": lambda: Mamba(16, 1),
    "recurrent": lambda: Recurrent(16, 1),
}


@functools.cache
def generator(name: str = "causal", classes: int = 0) -> Generator:
    torch.manual_seed(0)
    made = Generator(NETWORKS[name](), Categorical(), "raster").build(Space(shape=(N,), sizes=K, classes=classes))
    with torch.no_grad():  # sure enough that other inputs give other symbols
        made.head.weight *= 8
    return made.eval()


@functools.cache
def mixing() -> Generator:
    model = find("gpt")(width=16, depth=1, heads=2, length=16, ngrams=3)
    return model.fit(["It was a dark and stormy night. " * 12], steps=3, quiet=True).generator


def alone(made: Generator, job: Job, context: int) -> list[int]:
    prefixes, seeds = [job.prefix], torch.tensor([job.seed])
    found = continue_streams(made, prefixes, job.length, context, seeds, 1, job.options, None, job.ends)
    return found[0][len(job.prefix) :].tolist()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("turn", ["raster", "reverse", "random"])
def test_rows_at_places_of_their_own_have_the_features_of_the_whole(name: str, turn: str) -> None:
    """Items join at different times and places, and leave; every feature is that of the parallel pass."""
    if "language" in type(NETWORKS[name]()).__module__ and turn != "raster":
        pytest.skip("language models go from front to back")
    network = generator(name, classes=2).network
    order = {"raster": Order.raster(N), "reverse": Order.reverse(N), "random": Order.random(N, 3)}[turn]
    values = torch.randint(0, K, (5, N), generator=torch.Generator().manual_seed(1))
    label = torch.tensor([0, 1, -1, 1, 0])
    with torch.no_grad():
        whole = network(values, order, Condition(label=label))[:, order.permutation]
        rows, room = [], slots(network, order, 4)
        assert isinstance(room, KeyValueSlots) == isinstance(network, CausalTransformer)
        place = {}

        def join(items: list[int], seen: int) -> None:
            told = Condition(label=label[items])
            cache = network.start(len(items), order, told, values[items] if seen else None, seen)
            found = network.step(cache)[:, 0]
            torch.testing.assert_close(found, whole[items, seen], atol=1e-5, rtol=0)
            room.join(cache)
            rows.extend(items)
            place.update(dict.fromkeys(items, seen))

        def step() -> None:
            found = room.step(values[rows, order.permutation[room.places[: room.count]]][:, None])[:, 0]
            for row, item in enumerate(rows):
                place[item] += 1
                torch.testing.assert_close(found[row], whole[item, place[item]], atol=1e-5, rtol=0)
            assert room.sites()[:, 0].tolist() == [int(order.permutation[place[item]]) for item in rows]

        def leave(item: int) -> None:
            row = rows.index(item)
            room.leave(row)
            last = rows.pop()
            if row < len(rows):
                rows[row] = last

        join([0, 1], 4)
        step()
        join([2], 0)
        join([3], 6)
        with pytest.raises(ValueError, match="room for 0 items"):
            room.join(network.start(1, order))
        step()
        leave(0)
        step()
        join([4], 2)
        leave(4)
        leave(1)
        step()
        assert room.count == 2
        with pytest.raises(ValueError, match="not in use"):
            room.leave(2)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_streams_are_those_drawn_alone(data: st.DataObject) -> None:
    made = generator()
    context = data.draw(st.integers(0, N - 1))
    count = data.draw(st.integers(1, 6))
    jobs = [
        Job(
            torch.tensor(data.draw(st.lists(st.integers(0, K - 1), max_size=N + 3)), dtype=torch.int64),
            data.draw(st.integers(1, 2 * N)),
            data.draw(st.integers(-(2**63), 2**63 - 1)),
            data.draw(st.sampled_from([{}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8}, {"top_k": 2}])),
            data.draw(st.sampled_from([(), (1,), (2, 3)])),
        )
        for _ in range(count)
    ]
    engine = Engine(made, context, data.draw(st.integers(1, 4)), data.draw(st.integers(1, 12)))
    found: dict[int, list[int]] = {id(job): [] for job in jobs}
    finish: dict[int, str] = {}
    coming = list(jobs)
    for _ in range(200):
        for _ in range(data.draw(st.integers(0 if engine.busy else 1, 2)) if coming else 0):
            if coming:
                engine.submit(coming.pop(0))
        if not engine.busy and not coming:
            break
        for drawn in engine.step():
            assert id(drawn.job) not in finish
            found[id(drawn.job)].append(drawn.symbol)
            if drawn.finish:
                finish[id(drawn.job)] = drawn.finish
        assert engine.active <= engine.capacity
    assert len(finish) == count
    for job in jobs:
        symbols = found[id(job)]
        if finish[id(job)] == "end":
            assert symbols.pop() in job.ends
        else:
            assert len(symbols) == job.length and not set(symbols) & set(job.ends)
        assert symbols == alone(made, job, context)


def test_streams_with_counts_mixed_in_are_those_drawn_alone() -> None:
    made = mixing()
    prefixes = [torch.tensor(list(text)) for text in (b"It was", b"stormy night. It was a dark", b"", b"x")]
    jobs = [Job(prefix, 20 + 5 * i, i, {"temperature": 0.9}) for i, prefix in enumerate(prefixes)]
    for job, symbols in zip(jobs, Engine(made, 8, 3).run(jobs), strict=True):
        assert symbols == alone(made, job, 8)


def test_log_probabilities_are_the_models_own() -> None:
    made = generator()
    jobs = [Job(torch.tensor([1, 2]), N - 2, i, {"temperature": 0.5}, top=3 if i else None) for i in range(3)]
    engine, found = Engine(made, 4), {id(job): [] for job in jobs}
    for job in jobs:
        engine.submit(job)
    while engine.busy:
        for drawn in engine.step():
            found[id(drawn.job)].append(drawn)
    assert all(drawn.log_prob is None and drawn.top == () for drawn in found[id(jobs[0])])
    for job in jobs[1:]:
        values = torch.tensor([[1, 2, *(drawn.symbol for drawn in found[id(job)])]])
        with torch.no_grad():
            leaf = made.predict(values, made.order.scoring())
            every = torch.log_softmax(leaf.logits.double(), -1)[0, 2:]
        for drawn, expected in zip(found[id(job)], every, strict=True):
            assert drawn.log_prob == pytest.approx(float(expected[drawn.symbol]), abs=1e-5)
            best = expected.topk(3)
            assert [symbol for symbol, _ in drawn.top] == best.indices.tolist()
            assert [value for _, value in drawn.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_cancelled_streams_make_room_and_leave_the_others_alone() -> None:
    made = generator()
    jobs = [Job(torch.tensor([i]), 8, i) for i in range(5)]
    engine, found = Engine(made, 4, 2), {id(job): [] for job in jobs}
    for job in jobs:
        engine.submit(job)
    for turn in range(40):
        if turn == 2:
            engine.cancel(jobs[0])  # on its way
            engine.cancel(jobs[3])  # waiting
            assert engine.active == 1 and len(engine.waiting) == 2
        for drawn in engine.step():
            found[id(drawn.job)].append(drawn.symbol)
    assert not engine.busy and engine.step() == []
    engine.cancel(jobs[1])
    assert [len(found[id(job)]) for job in jobs] == [2, 8, 8, 0, 8]
    for number in (1, 2, 4):
        assert found[id(jobs[number])] == alone(made, jobs[number], 4)


def test_a_long_prefix_does_not_hold_up_more_than_its_step() -> None:
    made = generator()
    engine = Engine(made, 4, 8, prefill=9)
    for i in range(4):
        engine.submit(Job(torch.zeros(6, dtype=torch.int64), 5, i))
    counts = []
    while engine.busy:
        counts.append(len({id(drawn.job) for drawn in engine.step()}))
    assert counts[:4] == [1, 2, 3, 4]


def test_windows_that_do_not_move_on_end_there() -> None:
    made = generator()
    engine = Engine(made, None)
    engine.submit(Job(torch.tensor([1, 2, 3]), 100, 0))
    drawn = []
    while engine.busy:
        drawn += engine.step()
    assert len(drawn) == N - 3 and drawn[-1].finish == "length"
    with pytest.raises(ValueError, match="leaves no room"):
        engine.submit(Job(torch.zeros(N, dtype=torch.int64), 1, 0))
    with pytest.raises(ValueError, match="at least 1"):
        engine.submit(Job(torch.zeros(2, dtype=torch.int64), 0, 0))
    with pytest.raises(DataError, match="temperature"):
        engine.submit(Job(torch.zeros(2, dtype=torch.int64), 1, 0, {"temperature": -1}))
    assert not engine.busy


def test_buffers_stop_growing() -> None:
    engine = Engine(generator(), 4, 3)
    sizes = set()
    for round_ in range(3):
        engine.run([Job(torch.tensor([1]), 25, i) for i in range(7)])
        assert isinstance(engine._slots, KeyValueSlots)
        if round_:
            sizes.add(tuple(buffer.shape for buffer in engine._slots.keys))
    assert len(sizes) == 1
    assert next(iter(sizes))[0][0] == 3 and next(iter(sizes))[0][2] == N


@pytest.mark.parametrize("known", [0, 3, N])
def test_the_decoder_gives_what_ancestral_sampling_gives(known: int) -> None:
    made = generator("causal", classes=2)
    values = torch.randint(0, K, (6, N), generator=torch.Generator().manual_seed(2))

    def request() -> Request:
        mask = (torch.arange(N) < known).expand(6, N)
        label = torch.tensor([0, 1, 1, -1, 0, 1])
        return Request(Noise.of(4, 6), Condition(label=label), given=values, known=mask, options={"temperature": 0.8})

    assert torch.equal(Continuous(2)(made, request()), Ancestral()(made, request()))
    for other in ({"guidance": 1.0}, {"known": (torch.arange(N) % 2 == 0).expand(6, N)}):
        assert torch.equal(
            Continuous(2)(made, replace(request(), **other)), Ancestral()(made, replace(request(), **other))
        )


def test_a_model_draws_streams_of_different_lengths_at_once() -> None:
    model = find("flover")(width=16, depth=1, heads=2, length=16, capacity=2)
    model.build(["It was a dark and stormy night. " * 4])
    texts = ["It was", "a dark and stormy night, and so", "x"]
    assert model.complete(texts, draws=2, length=25, seed=3) == model.complete(
        texts, draws=2, length=25, seed=3, decoder=Ancestral()
    )


def test_what_cannot_be_drawn_one_by_one_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="single sites"):
        Engine(Generator(CausalTransformer(16, 1, 2), Categorical(), "single").build(Space((4,), 3)), None)
    with pytest.raises(ValueError, match="context=10"):
        Engine(generator("recurrent"), N)
