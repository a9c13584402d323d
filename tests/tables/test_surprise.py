"""Which rows are odd, and which of their cells makes them so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tables_toys import fitted, fitted_in_one_order, made

from ancestral.errors import DataError, UnsupportedError
from ancestral.order import Order
from ancestral.tables import anomalies, cell_scores


def test_a_cell_is_scored_given_all_others_of_its_row():
    model, few = fitted(), made().iloc[:9].reset_index(drop=True)
    scores, surprises = cell_scores(model, few)
    n = model.space.n
    for name, sites in model.tokenizer.columns.items():
        rank = np.arange(n)
        rank[sites] += n
        last = model.log_prob(few, order=Order(rank.tolist()), per_site=True).per_site
        assert np.allclose(scores[name], last[:, sites].sum(1), atol=1e-4)
    values, (site,) = model.tokenizer.encode(model.read(few)), range(*model.tokenizer.columns["label"].indices(n))
    rank = torch.arange(n)
    rank[site] += n
    each = []
    for symbol in range(3):  # no, yes, and the escape symbol
        values[:, site] = symbol
        each.append(model.generator.log_prob(values, order=Order(rank))[:, site])
    chances = torch.stack(each, 1).exp().double()
    entropy = -(chances * chances.log()).sum(1)
    assert np.allclose(surprises["label"], -scores["label"] - entropy.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("column", ["size", "wide"])
def test_cells_that_the_model_draws_are_not_surprising_on_average(column):
    model = fitted()
    redrawn = model.complete(made(1200, seed=4).assign(**{column: np.nan}).dropna(subset="colour"), seed=3)
    surprise = cell_scores(model, redrawn)[1][column]
    assert abs(surprise.mean()) < 4 * surprise.std() / len(surprise) ** 0.5


def test_the_spoilt_cell_is_named_with_what_was_expected(tmp_path):
    model, data = fitted(), made(60, seed=2)
    data["colour"] = data["colour"].fillna("red")
    data.loc[17, ["size", "wide", "label"]] = 9, 9000.0, "no"
    data.loc[41, "colour"] = "mauve"
    found = anomalies(model, data, 6)
    assert {17, 41} <= set(found["row"]) and list(found["surprise"]) == sorted(found["surprise"], reverse=True)
    label, colour = found.set_index("row").loc[17], found.set_index("row").loc[41]
    assert (label["column"], label["cell"], label["expected"]) == ("label", "no", "yes")
    assert (colour["column"], colour["cell"]) == ("colour", "mauve")
    assert np.allclose(found["bits"], -np.asarray(model.log_prob(data))[found["row"]] / np.log(2), atol=1e-4)
    # The same from files that are read chunk by chunk.
    from ancestral.data.tablefiles import read_table

    data.to_parquet(tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(anomalies(model, read_table(tmp_path / "rows.parquet", chunk=13), 6), found)


def test_refusals():
    with pytest.raises(DataError, match="cannot name 0 rows"):
        anomalies(fitted(), made(5), 0)
    with pytest.raises(UnsupportedError, match="cannot judge a cell by all others"):
        anomalies(fitted_in_one_order(), made(5))
