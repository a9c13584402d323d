"""A column given the others: probabilities agree with rows' scores, quantiles and estimates with probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tables_toys import TINY, fitted, fitted_in_one_order, made

import ancestral
from ancestral.errors import DataError, UnsupportedError
from ancestral.order import Order
from ancestral.tables import anomalies, prediction, quantiles
from ancestral.tables.rows import whole


def joint(model, frame, column, values, order=None):
    """log p of every row with each of the values in the column's place, ``[n, V]``."""
    out = []
    for value in values:
        filled = frame.assign(**{column: pd.Series([value] * len(frame), dtype=frame[column].dtype)})
        out.append(np.asarray(model.log_prob(filled, order=order)))
    return np.stack(out, 1)


def normalised(log_probs):
    chances = np.exp(log_probs - log_probs.max(1, keepdims=True))
    return chances / chances.sum(1, keepdims=True)


@pytest.mark.parametrize("column", ["label", "size", "colour", "when"])
def test_probabilities_are_those_of_whole_rows_in_the_order_that_ends_with_the_column(column):
    model, few = fitted(), made().iloc[:6].reset_index(drop=True)
    chances = model.predict_proba(few.drop(columns=column), column)
    assert np.allclose(chances.to_numpy().sum(1), 1)
    last = torch.arange(model.space.n)
    last[model.tokenizer.columns[column]] += model.space.n
    expected = normalised(joint(model, few, column, list(chances.columns), Order(last)))
    assert np.allclose(chances.to_numpy(), expected, atol=1e-5)


def test_several_sites_of_a_column_are_enumerated_digit_by_digit():
    model, few = fitted(), made().iloc[:3].reset_index(drop=True)
    assert len(range(*model.tokenizer.columns["wide"].indices(99))) > 1
    values = [float(v) for v in few["wide"]] + [0.0, 0.1, 4321.5]
    chances = prediction.predict_proba(model, few, "wide", values=values)
    last = torch.arange(model.space.n)
    last[model.tokenizer.columns["wide"]] += model.space.n
    assert list(chances.columns) == values
    assert np.allclose(chances.to_numpy(), normalised(joint(model, few, "wide", values, Order(last))), atol=1e-5)


def test_a_model_of_one_order_is_turned_round_by_bayes_rule():
    model, few = fitted_in_one_order(), made().iloc[:5].reset_index(drop=True)
    assert not model.generator.any_order
    chances = model.predict_proba(few, "size")
    assert np.allclose(chances.to_numpy(), normalised(joint(model, few, "size", list(chances.columns))), atol=1e-5)
    middle = quantiles(model, few, "size", 0.5)
    below = chances.to_numpy().cumsum(1)
    assert middle.tolist() == [chances.columns[int((row < 0.5).sum())] for row in below]
    # The last column of the order is asked for directly.
    direct = model.predict_proba(few, "label", values=["yes", "no"]).to_numpy()
    assert np.allclose(direct, normalised(joint(model, few, "label", ["yes", "no"])), atol=1e-5)
    with pytest.raises(UnsupportedError, match="one order only and cannot sum"):
        model.predict_proba(few.assign(colour="mauve"), "size")


@pytest.mark.parametrize("column", ["size", "when"])
def test_quantiles_and_estimates_agree_with_the_probabilities(column):
    model, few = fitted(), made().iloc[:8].reset_index(drop=True)
    chances = model.predict_proba(few, column)
    edges = chances.to_numpy().cumsum(1)
    found = quantiles(model, few, column, [0.1, 0.5, 0.9])
    for share in (0.1, 0.5, 0.9):
        assert found[share].tolist() == [chances.columns[int((row < share).sum())] for row in edges]
    assert found[0.5].tolist() == model.predict(few, column).tolist()
    assert found[0.5].dtype == few[column].dtype
    modes = chances.columns[chances.to_numpy().argmax(1)]
    assert model.predict(few, column, point="mode").tolist() == modes.tolist()


def test_quantiles_of_a_wide_column_have_their_shares_of_the_draws():
    model, row = fitted(), made().iloc[[3]].reset_index(drop=True)
    low, middle, high = quantiles(model, row, "wide", [0.2, 0.5, 0.8]).iloc[0]
    drawn = model.complete(row.assign(wide=np.nan), draws=2000, seed=1)["wide"]
    for share, value in ((0.2, low), (0.5, middle), (0.8, high)):
        assert abs((drawn <= value).mean() - share) < 0.04  # 4.5 standard deviations at most
    mean = model.predict(row, "wide", point="mean")
    assert abs(mean[0] - drawn.mean()) < 5 * drawn.std() / 2000**0.5 + 0.02 * drawn.std()


def test_cells_that_training_never_had_are_summed_over():
    model, few = fitted(), made().iloc[:4].reset_index(drop=True)
    unseen = model.predict_proba(few.assign(colour="mauve"), "label")
    unknown = model.predict_proba(few.assign(colour=None), "label", missing="unknown")
    valued = model.predict_proba(few.assign(colour=None), "label")
    assert np.allclose(unseen, unknown)
    assert not np.allclose(unknown, valued, atol=1e-4)


def test_estimates_follow_the_data():
    model, data = fitted(), made(300, seed=1)
    assert (model.predict(data, "label") == data["label"]).mean() > 0.85
    assert (model.predict(data, "wide") - 1000 * data["size"]).abs().mean() < 800


def test_named_values_only():
    model, few = fitted(), made().iloc[:3].reset_index(drop=True)
    every = model.predict_proba(few, "size")
    some = model.predict_proba(few, "size", values=[7, 2])
    assert list(some.columns) == [7, 2]
    assert np.allclose(some[7] / some[2], every[7] / every[2])


def test_bad_questions_are_one_clear_sentence():
    model, few = fitted(), made().iloc[:3]
    bad = [
        (lambda: model.predict(few, "weight"), DataError, "no column 'weight'; there are 'colour'"),
        (lambda: model.predict(few.drop(columns="size"), "label"), DataError, "no column 'size', which the model"),
        (lambda: model.predict(few.assign(extra=1), "label"), DataError, "knows no column 'extra'"),
        (lambda: model.predict(few, "label", point="best"), DataError, "point='best'"),
        (lambda: model.predict(few, "label", point="mean"), DataError, "'label' is a boolean column and has no mean"),
        (lambda: model.predict(few, "colour", point="median"), DataError, "'colour' .* has no quantiles"),
        (lambda: model.predict_proba(few, "wide"), UnsupportedError, "'wide' has more values than can be enumerated"),
        (lambda: model.predict_proba(few, "size", values=[77]), DataError, "'size' has no value 77"),
        (lambda: model.predict_proba(few, "size", missing="no"), DataError, "missing='no'"),
        (lambda: quantiles(model, few, "size", 1.5), DataError, "q=1.5"),
    ]
    for ask, kind, said in bad:
        with pytest.raises(kind, match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)
    words = ancestral.Model.__new__(ancestral.Model)
    words.tokenizer = ancestral.recipes.registry.find("gpt")(length=8).tokenizer
    with pytest.raises(UnsupportedError, match="only tables have columns"):
        words.predict(["a text"], "label")


def test_predictions_are_of_the_kind_of_the_data():
    import pyarrow as pa

    model, few = fitted(), made().iloc[:4].reset_index(drop=True)
    table = pa.Table.from_pandas(few, preserve_index=False)
    for point in ("auto", "mode", "mean"):
        found = model.predict(table, "size", point=point)
        assert isinstance(found, pa.Array) and found.to_pylist() == model.predict(few, "size", point=point).tolist()
    chances = model.predict_proba(table, "size")
    assert isinstance(chances, pa.Table) and chances.column_names == [str(v) for v in range(10)]
    assert isinstance(quantiles(model, table, "size", [0.1, 0.9]), pa.Table)


def test_a_csv_is_judged_by_a_model_of_a_frame(tmp_path):
    model, few = fitted(), made().iloc[:5].reset_index(drop=True)
    few.to_csv(tmp_path / "rows.csv", index=False)
    few.drop(columns="size").to_csv(tmp_path / "fewer.csv", index=False)
    for column in ("size", "label"):
        assert model.predict(tmp_path / "rows.csv", column).tolist() == model.predict(few, column).tolist()
    assert model.predict(tmp_path / "fewer.csv", "size").tolist() == model.predict(few, "size").tolist()
    odd = anomalies(model, tmp_path / "rows.csv", 2)
    assert odd.drop(columns="cell").equals(anomalies(model, few, 2).drop(columns="cell"))
    assert whole(model, tmp_path / "fewer.csv").cells("size").tolist() == [""] * 5


def test_predictions_of_polars_frames_are_polars():
    polars = pytest.importorskip("polars")
    model, few = fitted(), polars.from_pandas(made().iloc[:4].reset_index(drop=True))
    assert isinstance(model.predict(few, "label"), polars.Series)
    assert isinstance(model.predict_proba(few, "label"), polars.DataFrame)


def test_results_keep_the_labels_of_the_rows():
    model, few = fitted(), made().iloc[:4].set_axis(["d", "a", "d", "b"])
    gaps = few.assign(label=None)
    assert model.complete(gaps).index.tolist() == ["d", "a", "d", "b"]
    twice = model.complete(gaps, draws=2)
    assert twice.index.tolist() == ["d", "d", "a", "a", "d", "d", "b", "b"]
    assert twice["wide"].tolist() == few["wide"].repeat(2).tolist()
    results = (
        model.predict(gaps, "label"),
        model.predict_proba(gaps, "label"),
        quantiles(model, gaps, "size", [0.2, 0.5]),
    )
    assert all(result.index.equals(few.index) for result in results)
    assert model.complete(gaps.reset_index(drop=True)).index.equals(pd.RangeIndex(4))


def test_estimators_keep_the_labels_of_the_rows():
    estimator = ancestral.TableModel("any-order", steps=2, options=TINY).fit(made(30))
    few = made(30).iloc[3:6]
    few = few.assign(colour=None).astype({"colour": "str"})
    for result in (estimator.impute(few), estimator.complete(few), estimator.predict_proba(few, "label")):
        assert result.index.tolist() == [3, 4, 5]
