"""Rows as clauses: exact round trips, shuffling, what counts as well formed, and the recipe's verbs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ancestral
from ancestral.data import Table
from ancestral.errors import DataError
from ancestral.tokenizers import Tokenizer
from ancestral.tokenizers.clauses import Clauses, shuffle_clauses

CELL = st.text(max_size=6).filter(lambda s: "\x00" not in s and not any(0xD800 <= ord(c) < 0xE000 for c in s))


def people(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], n)
    return pd.DataFrame({"sex": sex, "kind": np.where(sex == "f", "x", "y"), "age": rng.integers(10, 13, n)})


def rows(table: Table) -> list[tuple]:
    return list(zip(*(table.cells(name) for name in table.columns)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from(["bytes", "bpe"]))
def test_every_cell_comes_back(cells, pieces):
    names = ["a", "a is b"]  # one name is the beginning of what another's clause may be
    frame = pd.DataFrame({n: np.array([c[i] for c in cells], dtype=object) for i, n in enumerate(names)})
    table = Table(frame, kind="csv")
    tokenizer = Clauses(pieces, 300).fit(table)
    values, extra = tokenizer.encode_exact(table)
    again = Tokenizer.from_state(tokenizer.state())
    if not any(c[0].startswith("b is ") for c in cells):
        assert rows(again.decode_exact(values, extra)) == rows(table)


def test_typed_tables_with_missing_cells_come_back():
    table = Table.read(pd.DataFrame({"n": [1.5, None, 3.0], "w": ["u", "v", None], "k": [1, 2, 3]}))
    tokenizer = Clauses("bytes").fit(table)
    values = tokenizer.encode(table)
    assert rows(tokenizer.decode_exact(values)) == rows(table)
    assert bool(tokenizer.valid(values).all())
    known = tokenizer.known(table)
    assert bool(known[0].all())
    # Known cells come first, so that the model can go on from them.
    assert known[1].tolist() == sorted(known[1].tolist(), reverse=True) and not known[1].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_shuffling_permutes_whole_clauses(seed):
    table = Table.read(people(5, seed % 7))
    tokenizer = Clauses("bytes").fit(table)
    values = tokenizer.encode(table)
    keys = torch.rand(5, 4, generator=torch.Generator().manual_seed(seed))
    mixed = shuffle_clauses(values, tokenizer.end, keys)
    assert rows(tokenizer.decode_exact(mixed)) == rows(table)
    order = [[c for c, _ in row] for row in tokenizer._parse(mixed)]
    assert order == [[table.columns[j] for j in torch.argsort(k[:3]).tolist()] for k in keys]


def test_malformed_rows_are_told_from_well_formed_ones():
    table = Table.read(people(20))
    tokenizer = Clauses("bytes").fit(table)

    def row(*clauses: str, stop: bool = True) -> torch.Tensor:
        ids = [i for c in clauses for i in [*c.encode(), tokenizer.end]]
        full = torch.full((1, tokenizer.space.n), tokenizer.end + 1 if stop else ord("z"))
        full[0, : len(ids)] = torch.tensor(ids)
        return full

    good = ["age is 11", "sex is f", "kind is x"]
    assert bool(tokenizer.valid(row(*good)))
    for bad in (good[:2], [*good[:2], "sex is f"], ["age is 111", *good[1:]], ["age is f", *good[1:]], ["ag is 11"]):
        assert not bool(tokenizer.valid(row(*bad)))
    assert not bool(tokenizer.valid(row(*good, stop=False)))
    assert rows(tokenizer.decode(row("sex is f", "age is f", "kind is x")))[0] == ("f", "x", None)


@pytest.fixture(scope="module")
def model():
    return ancestral.fit(
        people(400), recipe="great", pieces="bytes", width=32, depth=2, heads=2, dropout=0.0, steps=250, lr=1e-2,
        batch_size=32, validation=0, quiet=True,
    )  # fmt: skip


def test_drawn_rows_are_rows_of_the_table(model):
    drawn = model.sample(60, seed=1)
    assert set(drawn.sex) <= {"f", "m"} and set(drawn.kind) <= {"x", "y"}
    assert drawn.age.isna().sum() == 0 and drawn.age.between(0, 99).all()
    assert ((drawn.sex == "f") == (drawn.kind == "x")).mean() > 0.9


def test_any_columns_can_be_given(model):
    drawn = model.sample(30, given={"kind": "y"}, seed=2)
    assert set(drawn.kind) == {"y"} and (drawn.sex == "m").mean() > 0.9
    done = model.complete(pd.DataFrame({"sex": ["f", None], "kind": [None, "y"], "age": [11, None]}), seed=3)
    assert done.sex[0] == "f" and done.age[0] == 11 and done.kind[0] == "x"
    assert done.kind[1] == "y" and done.sex[1] == "m"
    with pytest.raises(DataError, match="column 'kind' has no value 'q'"):
        model.sample(1, given={"kind": "q"})
    with pytest.raises(DataError, match="no column 'kin'"):
        model.sample(1, given={"kin": "x"})


def test_scores_are_lower_bounds_and_files_come_back(model):
    table = people(30, 5)
    scores = model.log_prob(table)
    assert scores.kind == "lower_bound" and len(scores) == 30
    # The best order of a row's text is at least as probable as the one that is scored, and their sum more so.
    tokenizer = model.tokenizer
    values = tokenizer.encode(model.read(table))
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) / 10
    with torch.no_grad():
        each = [
            model.generator.log_prob(shuffle_clauses(values, tokenizer.end, o.expand(30, 3))).double().sum(1)
            for o in orders
        ]
    assert bool((torch.stack(each).logsumexp(0).numpy() >= np.asarray(scores) - 1e-5).all())
    assert model.decompress(model.compress(table)).equals(table)
