"""Sequential tables: probabilities sum to one, samples follow them, and tables come back as they were."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import ancestral
from ancestral.errors import DataError
from ancestral.tables.event_network import EventNetwork
from ancestral.tables.sequential import SequentialTable

QUICK = dict(key="user", time="day", width=16, quiet=True)


def purchases(n: int = 300, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users with a plan; those with plan b come back more often and buy more. A tenth never buys."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame({"id": [f"u{i}" for i in range(n)], "plan": rng.choice(["a", "b"], n)})
    rows = []
    for user, plan in users.itertuples(index=False):
        count = 0 if rng.random() < 0.1 else rng.geometric(0.6 if plan == "a" else 0.3)
        day = int(rng.integers(0, 20))
        for _ in range(count):
            rows.append((user, pd.Timestamp("2020-01-01") + pd.Timedelta(days=day), rng.choice(["x", "y"]), count))
            day += int(rng.integers(1, 4))
    frame = pd.DataFrame(rows, columns=["user", "day", "what", "amount"])
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True), users


@pytest.fixture(scope="module")
def model():
    rows, users = purchases()
    return ancestral.fit(rows, context=users, context_key="id", steps=250, lr=1e-2, **QUICK)


def test_probabilities_of_all_sequences_sum_to_one():
    torch.manual_seed(0)
    network = EventNetwork([2], [2], [2, 2], width=8, depth=2)
    total = 0.0
    cells = list(itertools.product(range(2), repeat=3))
    with torch.no_grad():
        for told in range(2):
            for steps in (1, 2, 3):
                firsts = [(0, *rest) for rest in itertools.product(range(2), repeat=2)]
                every = [(f, *more) for f in firsts for more in itertools.product(cells, repeat=steps - 1)]
                rows = torch.tensor(every)
                clock = torch.stack([rows[..., 0].float(), rows[..., 0].cumsum(1).float()], -1)
                length = torch.full((len(rows),), steps)
                context, terms = network.log_prob(torch.full((len(rows), 1), told), rows, clock, length)
                whole = (context.sum(1) + terms.sum((1, 2))).double()
                total += float(whole.exp().sum())
                if steps == 3:  # those that go on after the last of these rows
                    stop = terms[:, steps, 0].double()
                    total += float((whole - stop + torch.log1p(-stop.exp())).exp().sum())
    assert abs(total - 1) < 1e-5


def test_padding_and_the_batch_change_nothing(model):
    rows, users = purchases(40, seed=1)
    together = model.log_prob(rows, users)
    for name in users["id"][:5]:
        alone = (
            model.log_prob(rows[rows["user"] == name], users[users["id"] == name])
            if name in set(rows["user"])
            else None
        )
        assert alone is None or np.allclose(alone[name], together[name], atol=1e-4)
    shuffled = model.log_prob(rows.sample(frac=1, random_state=3), users.iloc[::-1])
    assert np.allclose(shuffled[users["id"]], together, atol=1e-4)
    parts = model.log_prob(rows, users, per_part=True)
    assert list(parts.columns) == ["context", "number", "gaps", "what", "amount"]
    assert np.allclose(parts.sum(axis=1), together) and parts.index.tolist() == users["id"].tolist()
    assert (parts.drop(columns="context")[~users["id"].isin(rows["user"]).to_numpy()] == 0).all(axis=None)


def test_samples_have_the_frequencies_that_the_scores_tell(model):
    users, rows = model.sample(4000, seed=1)
    assert list(rows.columns) == ["user", "day", "what", "amount"] and rows["day"].dtype.kind == "M"
    assert users["id"].tolist() == list(range(4000)) and set(users["plan"]) == {"a", "b"}
    # Keys of a single row on a common day: the score is exact, so their share must agree.
    single = rows.groupby("user").filter(lambda part: len(part) == 1)
    kinds = users.set_index("id").loc[single["user"], "plan"].to_numpy()
    cells = pd.DataFrame({"plan": kinds, "day": single["day"].to_numpy(), "what": single["what"].to_numpy()})
    cells["amount"] = single["amount"].to_numpy()
    counts = cells.value_counts()
    chosen = counts.head(25).index.to_frame(index=False)
    asked = pd.DataFrame({"user": [f"k{i}" for i in range(len(chosen))]}).join(chosen[["day", "what", "amount"]])
    told = pd.DataFrame({"id": asked["user"], "plan": chosen["plan"]})
    chance = np.exp(model.log_prob(asked, told)).to_numpy()
    expected = 4000 * chance
    seen = counts.head(25).to_numpy()
    rest = 4000 - seen.sum(), 4000 * (1 - chance.sum())
    square = ((seen - expected) ** 2 / expected).sum() + (rest[0] - rest[1]) ** 2 / rest[1]
    assert square < 25 + 5 * (2 * 25) ** 0.5  # chosen by their counts, so a little wider than chi-square


def test_a_sample_depends_on_its_number_only(model):
    few, many = model.sample(5, seed=7), model.sample(60, seed=7)
    pd.testing.assert_frame_equal(few.rows, many.rows[many.rows["user"] < 5].reset_index(drop=True))
    pd.testing.assert_frame_equal(few.context, many.context[:5])


def test_the_model_has_learned_who_comes_back(model):
    users, rows = model.sample(3000, seed=2)
    counts = rows.groupby("user").size().reindex(users["id"], fill_value=0)
    mean = counts.groupby(users.set_index("id")["plan"]).mean()
    real_rows, real_users = purchases(3000, seed=5)
    real = real_rows.groupby("user").size().reindex(real_users["id"], fill_value=0)
    truth = real.groupby(real_users.set_index("id")["plan"]).mean()
    assert mean["b"] > 1.4 * mean["a"] and (mean / truth - 1).abs().max() < 0.3
    gaps = rows.groupby("user")["day"].diff().dropna().dt.days
    assert gaps.min() >= 1 and gaps.max() <= 3
    assert abs((counts == 0).mean() - 0.1) < 0.05


def test_forecasts_follow_the_last_row_and_their_probability(model):
    rows, users = purchases(6, seed=9)
    users = users[users["id"].isin(rows["user"])]
    future = model.complete(rows, users, draws=400, seed=1)
    last = rows.groupby("user")["day"].max()
    assert (future["day"] > last[future["user"]].to_numpy()).all()
    assert list(future.columns) == ["user", "draw", "day", "what", "amount"]
    source_key = users["id"].iloc[0]
    mine = rows[rows["user"] == source_key]
    stopped = 1 - future[future["user"] == source_key]["draw"].nunique() / 400
    # p(stops) = p(these rows) / p(these rows, whatever follows); the latter from the part that scores the number.
    encoded = model.codec.encode(mine, users[users["id"] == source_key])
    with torch.no_grad():
        _, terms = model.network.log_prob(encoded.context, encoded.rows[None], encoded.clock[None], encoded.length)
    chance = float(terms[0, -1, 0].exp())
    assert abs(stopped - chance) < 4.5 * (chance * (1 - chance) / 400) ** 0.5 + 0.01
    exactly = model.complete(rows, users, events=3, at_least=3, seed=2)
    assert (exactly.groupby("user").size() == 3).all()


def test_saved_models_score_and_draw_alike(model, tmp_path):
    model.save(tmp_path / "m")
    model.save(tmp_path / "m", overwrite=True)
    again = ancestral.load(tmp_path / "m")
    rows, users = purchases(20, seed=3)
    assert isinstance(again, SequentialTable) and again.parameters == model.parameters
    assert again.log_prob(rows, users).equals(model.log_prob(rows, users))
    assert again.sample(9, seed=1).rows.equals(model.sample(9, seed=1).rows)
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="damaged"):
        ancestral.load(tmp_path / "m")


def test_files_without_a_context_table_and_with_numbers_for_times(tmp_path):
    rows, users = purchases(60)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    users.to_csv(tmp_path / "users.csv", index=False)
    one = ancestral.fit(tmp_path / "rows.csv", context=tmp_path / "users.csv", context_key="id", steps=3, **QUICK)
    drawn = one.sample(5)
    assert drawn.rows.columns.tolist() == rows.columns.tolist() and len(drawn.context) == 5
    assert pd.to_datetime(drawn.rows["day"], format="%Y-%m-%d").notna().all()
    bare = rows.assign(day=(rows["day"] - rows["day"].min()).dt.days)[["user", "day"]]
    two = ancestral.fit(bare, steps=3, **QUICK)
    drawn = two.sample(5)
    assert drawn.context is None and drawn.rows["day"].dtype.kind == "i" and drawn.rows["user"].nunique() == 5
    assert np.isfinite(two.log_prob(bare)).all() and len(two.log_prob(bare)) == bare["user"].nunique()


def _of(kind, frame):
    words = frame.assign(day=frame["day"].dt.strftime("%Y-%m-%d")) if "day" in frame and kind == "words" else frame
    if kind == "polars":
        return pytest.importorskip("polars").from_pandas(words)
    arrow = pytest.importorskip("pyarrow")
    if kind == "arrow":
        return arrow.table(words)
    if kind == "dates":
        table = arrow.table(words)
        at = table.schema.get_field_index("day")
        return table if at < 0 else table.set_column(at, "day", table.column("day").cast(arrow.date32()))
    if kind == "zones" and "day" in words:
        return words.assign(day=words["day"].dt.tz_localize("Europe/Oslo"))
    return words


@pytest.mark.parametrize("kind", ["words", "zones", "polars", "arrow", "dates"])
def test_rows_and_context_come_back_in_their_own_types(kind, tmp_path):
    rows, users = (_of(kind, frame) for frame in purchases(60))
    made = ancestral.fit(rows, context=users, context_key="id", steps=3, **QUICK)
    made.save(tmp_path / "m")
    told, drawn = ancestral.load(tmp_path / "m").sample(30, seed=1)
    assert type(told) is type(users) and type(drawn) is type(rows) and len(drawn)
    for name in ("day", "what", "amount"):
        assert _type(drawn, name) == _type(rows, name)
    assert _type(told, "plan") == _type(users, "plan")
    assert np.isfinite(made.log_prob(drawn, told)).all()
    users = told.to_pandas() if kind in ("polars", "arrow", "dates") else told
    keep = set((drawn.to_pandas() if kind in ("polars", "arrow", "dates") else drawn)["user"])
    assert type(made.complete(drawn, users[users["id"].isin(keep)], events=2)) is type(rows)


def _type(frame, name):
    return frame.schema.field(name).type if type(frame).__module__.startswith("pyarrow") else frame[name].dtype


def test_bad_input_is_one_clear_sentence(model):
    numbered = pd.DataFrame({"user": [3, 7, 7], "day": [1, 2, 3], "what": ["x", "y", "x"]})
    rows, users = purchases(30)
    late = rows.assign(day=rows["day"].where(rows.index != 4))
    bad = [
        (lambda: ancestral.fit(rows, key="user"), "needs time="),
        (lambda: ancestral.fit(rows, key="who", time="day"), "rows have no column 'who'; they have 'user'"),
        (
            lambda: ancestral.fit(rows, context=users, **QUICK),
            "no column 'user' for the key; name it with context_key=",
        ),
        (lambda: ancestral.fit(rows, recipe="nade", **QUICK), "no recipe= to choose"),
        (lambda: ancestral.fit(late, **QUICK), "row 4 has no 'day'; every row needs its time"),
        (lambda: ancestral.fit(rows.assign(day="soon"), **QUICK), "row 0 has the time 'soon'"),
        (lambda: ancestral.fit(rows.assign(day=0.5), **QUICK), "row 0 has the time 0.5; give whole numbers"),
        (lambda: ancestral.fit(rows.assign(user=None), **QUICK), "row 0 has no key 'user'"),
        (lambda: model.log_prob(rows, users[users["id"] != rows["user"][3]]), "row .* belongs to the key 'u"),
        (lambda: model.log_prob(rows, pd.concat([users, users[:1]])), "has the key 'u0' a second time in row 30"),
        (
            lambda: ancestral.fit(numbered, context=pd.DataFrame({"id": [7]}), context_key="id", **QUICK),
            "row 0 belongs to the key 3, which the context table lacks",
        ),
        (lambda: model.log_prob(rows), "give context= as well"),
        (lambda: model.log_prob(rows.drop(columns="what"), users), "no column 'what'"),
        (lambda: model.log_prob(rows.assign(day=3), users), "'day' holds numbers unlike"),
        (lambda: model.complete(rows, users), "has no rows to go on from"),
        (lambda: model.sample(0), "cannot draw 0 keys"),
    ]
    for ask, said in bad:
        with pytest.raises(DataError, match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)
