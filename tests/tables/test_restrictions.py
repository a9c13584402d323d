"""Sets and ranges in given=: blocks hold the right cells, and draws follow the model's own conditional distribution."""

from __future__ import annotations

import datetime
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tables_toys import fitted_in_one_order, made

from ancestral import between
from ancestral.data.table import Table
from ancestral.errors import DataError, UnsupportedError
from ancestral.recipes.table.tabular_argn import tabular_argn
from ancestral.tables.conditionals import Rows, chain
from ancestral.tables.conditioning import draw_given, weigh
from ancestral.tables.restrictions import Blocks
from ancestral.tokenizers import Columns


def covered(blocks):
    """All symbols of a column that its blocks hold."""
    found, prefixes = set(), np.zeros((1, 0), np.int64)
    sizes = blocks.sizes
    for depth in range(len(sizes)):
        state = blocks.children(prefixes)
        rest = list(itertools.product(*map(range, sizes[depth + 1 :])))
        for row, symbol in np.argwhere(state >= 2).tolist():
            found |= {(*prefixes[row].tolist(), symbol, *tail) for tail in rest}
        row, symbol = np.nonzero(state == 1)
        prefixes = np.concatenate([prefixes[row], symbol[:, None]], 1)
    assert len(prefixes) == 0, "a prefix was neither within nor outside"
    return found


def agreeing(blocks, wanted):
    """The symbols whose cells are wanted, found by decoding all."""
    every = np.array(list(itertools.product(*map(range, blocks.sizes))), dtype=np.int64)
    every = every[every[:, 0] != blocks.codec.escape]
    right = [wanted(cell) for cell in blocks.codec.decode(every)]
    return set(map(tuple, every[np.array(right, dtype=bool)].tolist()))


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(-3000, 3000), min_size=30, max_size=120),
    repeats=st.integers(1, 5),
    ends=st.tuples(st.integers(-3200, 3200), st.integers(-3200, 3200)),
    others=st.sets(st.integers(0, 29), max_size=3),
    lists=st.booleans(),
)
def test_blocks_hold_all_cells_of_a_range_and_no_other(values, repeats, ends, others, lists):
    cells = [str(v) for v in values] * repeats + ["?"] * 3
    columns = Columns(bins=6, lists=lists).fit(Table(pd.DataFrame({"x": cells}, dtype=object), kind="csv"))
    low, high = sorted(ends)
    chosen = {values[i] for i in others}
    held = {v for v in values if low <= v <= high}
    if not held and not chosen:
        return
    wanted = [*chosen, "?", *([between(low, high)] if held else [])]
    blocks = Blocks(columns, "x", wanted)
    inside = range(low, high + 1) if held else range(0)
    assert covered(blocks) == agreeing(blocks, lambda c: c == "?" or int(c) in chosen or int(c) in inside)


@pytest.mark.parametrize("lists", [False, True])
def test_blocks_of_long_lists_and_of_dates(lists):
    words = [f"word {i}" for i in range(300)]
    days = pd.date_range("2024-01-01", periods=300, freq="9D").astype("datetime64[s]")
    minutes = pd.date_range("2024-02-28 22:00", periods=300, freq="min").astype("datetime64[s]")
    frame = pd.DataFrame({"word": words, "day": days, "minute": minutes, "place": np.arange(300) * 1.5})
    columns = Columns(bins=8, lists=lists).fit(Table(frame))
    some = words[3:200:7]
    assert covered(b := Blocks(columns, "word", some)) == agreeing(b, lambda c: c in some)
    b = Blocks(columns, "day", [between("2024-02-03", datetime.date(2025, 2, 9))])
    assert covered(b) == agreeing(b, lambda c: "2024-02-03" <= c <= "2025-02-09")
    b = Blocks(columns, "minute", [between("2024-02-28 23:30", "2024-02-29")])
    assert covered(b) == agreeing(b, lambda c: c >= "2024-02-28T23:30")
    b = Blocks(columns, "minute", [between(None, datetime.date(2024, 2, 28))])
    assert covered(b) == agreeing(b, lambda c: c < "2024-02-29")
    b = Blocks(columns, "place", [between(None, 30.25), between(400)])
    assert covered(b) == agreeing(b, lambda c: float(c) <= 30.25 or float(c) >= 400)


@pytest.fixture(scope="module")
def untrained():
    """A model with random weights, of columns with one site, with several digits and with listed values."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.integers(0, 5, 600),
            "wide": rng.integers(0, 900, 600) * 10,
            "colour": rng.choice(["red", "green", None], 600),
            "often": rng.choice(rng.integers(0, 9000, 400), 600),
            "label": rng.choice(["yes", "no"], 600),
        }
    )
    model = tabular_argn(width=16, sums=24).build(frame)
    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return model


def mass(model, name, blocks, values, known):
    """log p of a set of one column's symbols, added up symbol by symbol."""
    symbols = torch.tensor(sorted(covered(blocks)))
    hidden = known.clone()
    rows = Rows(values[None], hidden[None], model.tokenizer.columns[name])
    return torch.logsumexp(chain(model, rows, symbols)[0], 0)


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("wide", [between(1230, 4570)]),
        ("wide", [50, 900, 910]),
        ("often", [between(1040, 2570)]),
        ("colour", [None]),
    ],
)
def test_the_mass_of_a_set_is_the_sum_over_its_symbols(untrained, name, wanted):
    if name == "wide" and len(wanted) == 3:
        wanted = untrained.sample(4, seed=3)["wide"].tolist()
    values, known = untrained.tokenizer.given({"size": 3})
    blocks = Blocks(untrained.tokenizer, name, wanted)
    found = weigh(untrained, values, known, [blocks])
    expected = mass(untrained, name, blocks, values, known)
    assert torch.isclose(torch.logsumexp(found.log_prob, 0), expected, atol=1e-6)
    assert -20 < float(expected) < -1e-3


def test_draws_follow_the_distribution_given_two_sets_and_a_cell():
    frame = pd.DataFrame(
        {
            "a": np.arange(240) % 4,
            "b": [["x", "y", "z"][i] for i in np.random.default_rng(0).integers(0, 3, 240)],
            "c": np.random.default_rng(1).integers(0, 3, 240),
            "d": np.random.default_rng(2).choice(["u", "v"], 240),
        }
    )
    model = tabular_argn(width=8, sums=12).build(frame)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in model.generator.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    given = {"b": "y", "a": between(1, 2), "d": {"u"}, "c": [0, 2]}
    n = 6000
    for options in ({}, {"temperature": 0.6}):
        drawn = draw_given(model, n, {**given, "d": {"u", "v"}}, seed=5, options=options)
        values, known = model.tokenizer.given({"b": "y"})
        blocks = [Blocks(model.tokenizer, k, w) for k, w in {"a": [1, 2], "d": ["u", "v"], "c": [0, 2]}.items()]
        order = weigh(model, values, known, blocks).order
        symbols = [sorted(s for (s,) in covered(b)) for b in blocks]
        sites = [b.sites.start for b in blocks]
        rows = values.repeat(8, 1)
        rows[:, sites] = torch.tensor(list(itertools.product(*symbols)))
        if options:
            # Tempered site by site, as the drawing is.
            total = torch.zeros(8, dtype=torch.float64)
            from ancestral.tables.conditionals import next_site

            for place in range(1, 4):
                site = int(order.permutation[place])
                each = torch.log_softmax(next_site(model.generator, order, rows, place) / 0.6, -1)
                total += each.gather(1, rows[:, [site]])[:, 0]
        else:
            total = model.generator.log_prob(rows, order=order).double().sum(1)
        chances = torch.softmax(total, 0).detach().numpy()
        counts = np.array([(drawn == row).all(1).sum() for row in rows])
        assert counts.sum() == n
        assert stats.chisquare(counts, n * chances).pvalue > 1e-3


def test_the_rest_of_a_row_follows_the_block_it_began_with(untrained):
    """Wide ranges end in blocks of different depth; the fine digits and the other columns go on from there."""
    wanted = between(1230, 4570)
    drawn = draw_given(untrained, 4000, {"wide": wanted, "label": "yes"}, seed=2)
    wide = untrained.tokenizer.decode(drawn).frame["wide"]
    assert wide.between(1230, 4570).all() and wide.nunique() > 100
    # Rejection from the same order gives the same distribution of the others.
    values, known = untrained.tokenizer.given({"label": "yes"})
    order = weigh(untrained, values, known, [Blocks(untrained.tokenizer, "wide", [wanted])]).order
    free = untrained.sample(30000, given={"label": "yes"}, order=order, seed=9)
    kept = free[free["wide"].between(1230, 4570)]
    assert len(kept) > 500
    table = untrained.tokenizer.decode(drawn).frame
    for column in ("size", "colour"):
        both = pd.concat([table[column].astype(str), kept[column].astype(str)], keys=[0, 1])
        counts = pd.crosstab(both.index.get_level_values(0), both.to_numpy())
        assert stats.chi2_contingency(counts).pvalue > 1e-3
    assert stats.ks_2samp(table["wide"], kept["wide"]).pvalue > 1e-3


def test_two_wide_columns_at_once_and_missing_cells(untrained):
    drawn = untrained.sample(300, given={"wide": between(None, 4000), "often": between(2000), "colour": {"red", None}})
    assert drawn["wide"].le(4000).all() and drawn["often"].ge(2000).all()
    assert set(drawn["colour"].dropna()) == {"red"} and drawn["colour"].isna().any()


def test_the_mass_of_two_wide_columns_is_the_sum_over_the_values_of_one(untrained):
    values, known = untrained.tokenizer.given({"label": "no"})
    few = sorted(set(untrained.sample(4, seed=3)["wide"].tolist()))
    wanted = between(1040, 2570)
    wide, often = Blocks(untrained.tokenizer, "wide", few), Blocks(untrained.tokenizer, "often", [wanted])
    total = torch.logsumexp(weigh(untrained, values, known, [wide, often]).log_prob, 0)
    parts = []
    for value in few:
        one = Blocks(untrained.tokenizer, "wide", [value])
        there, shown = untrained.tokenizer.given({"label": "no", "wide": value})
        order = weigh(untrained, values, known, [wide, often]).order
        both = weigh(untrained, there, shown, [often], order=order)
        parts.append(mass(untrained, "wide", one, values, known) + torch.logsumexp(both.log_prob, 0))
    assert torch.isclose(total, torch.logsumexp(torch.stack(parts), 0), atol=1e-6)


def test_a_row_depends_on_its_number_alone(untrained):
    wanted = {"wide": between(1000, 5000), "size": {1, 2}}
    every = untrained.sample(12, given=wanted, seed=4)
    pd.testing.assert_frame_equal(untrained.sample(12, given=wanted, seed=4, batch_size=5), every)
    some = untrained.sample(4, given=wanted, seed=4, first=8)
    pd.testing.assert_frame_equal(some, every[8:].reset_index(drop=True))


def test_ends_of_ranges_are_read_as_the_column_writes_them():
    cells = {
        "day": [f"{1 + i % 28:02}/{1 + i % 12:02}/2024" for i in range(300)],
        "hour": [f"{i % 24:02}:{i * 7 % 60:02}" for i in range(300)],
        "price": [f"${i % 97}.50" for i in range(300)],
    }
    table = Table(pd.DataFrame(cells, dtype=object), kind="csv")
    columns = Columns().fit(table)

    def kept(name, wanted):
        blocks = Blocks(columns, name, [wanted])
        return set(blocks.codec.decode(np.array(sorted(covered(blocks))))) & set(cells[name])

    march = {cell for cell in cells["day"] if cell[3:5] == "03"}
    assert kept("day", between("01/03/2024", "31/03/2024")) == march
    assert kept("day", between(pd.Timestamp("2024-03-01"), "2024-03-31")) == march
    assert kept("hour", between("22:30", None)) == {c for c in cells["hour"] if c >= "22:30"}
    assert kept("hour", between(datetime.time(22, 30))) == {c for c in cells["hour"] if c >= "22:30"}
    assert kept("price", between("$90", 91.5)) == {"$90.50", "$91.50"}


@pytest.mark.parametrize("places", [2, 16])
def test_a_range_of_numbers_with_exponents_ends_where_it_is_told_to(places):
    numbers = np.random.default_rng(0).lognormal(0, 3, 200)
    cells = [f"{x:.{places}e}" for x in (*numbers, *-numbers)]
    columns = Columns().fit(Table(pd.DataFrame({"x": cells}, dtype=object), kind="csv"))
    low, high = -1.0049, 2.3451  # both would be rounded outwards to two places
    blocks = Blocks(columns, "x", [between(low, high)])
    ends = [float(columns._codecs["x"].form.write(end)[0]) for end in (blocks._lows, blocks._highs)]
    assert ends == ([-1.0, 2.34] if places == 2 else [low, high])


def test_bad_conditions_are_one_clear_sentence(untrained, monkeypatch):
    model = tabular_argn(width=8, sums=12).build(made())
    bad = [
        ({"weight": {1, 2}}, "no column 'weight'; there are 'colour'"),
        ({"colour": {"red", "mauve"}}, "column 'colour' has no value 'mauve'; it takes 'red'"),
        ({"colour": between("a", "b")}, "column 'colour' is categorical and has no order for a range between a and b"),
        ({"size": between(40, 50)}, "column 'size' has no value between 40 and 50; it takes 0 to 9"),
        ({"size": between(5, 3)}, "column 'size' has no value between 5 and 3"),
        ({"size": between("five", None)}, "the end 'five' of the range for column 'size' is no number"),
        ({"when": between("soon", None)}, "the end 'soon' of the range for column 'when' is no date"),
        ({"when": between(3, None)}, "the end 3 of the range for column 'when' is no date"),
        ({"size": []}, "restricts column 'size' to no value at all"),
    ]
    for condition, words in bad:
        with pytest.raises(DataError, match=words.replace("(", r"\(")):
            model.sample(2, given=condition)
    with pytest.raises(DataError, match="names no end"):
        between()
    with pytest.raises(DataError, match="leave out decoder="):
        model.sample(2, given={"size": {1}}, decoder=model.decoder)
    with pytest.raises(UnsupportedError, match="cannot begin with 'size'; use an any-order"):
        fitted_in_one_order().sample(2, given={"size": {1, 2}})
    first = fitted_in_one_order().sample(20, given={"colour": {"red", "blue"}})
    assert set(first["colour"]) == {"red", "blue"}
    monkeypatch.setattr("ancestral.tables.conditioning.MOST_CONTEXTS", 10)
    with pytest.raises(UnsupportedError, match="'often' and 'wide' are restricted to more combinations than can be"):
        untrained.sample(2, given={"often": between(0), "wide": between(0), "label": "yes"})
