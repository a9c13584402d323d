"""TabularARGN: a small network per column, in any order."""

from __future__ import annotations

from ancestral.heads.ragged import RaggedCategorical
from ancestral.model import Model
from ancestral.networks.columns import ColumnNetwork
from ancestral.order import RandomOrders
from ancestral.recipes.registry import Claim, recipe
from ancestral.tokenizers import Columns


@recipe(
    "tabular-argn",
    title="TabularARGN: a flexible and efficient auto-regressive framework for generating high-fidelity synthetic data",
    paper="arXiv:2501.12012",
    authors="Tiwald, Krchova, Sidorenko, Vargas Vieyra, Scriminaci, Platzer (2025)",
    tiny=dict(width=8, sums=12),
    toy="table",
    claim=Claim("as good as the best tabular generators, faster to train and to draw from by far", "tables_adult"),
)
def tabular_argn(
    width: int = 64, sums: int = 96, depth: int = 1, dropout: float = 0.1, neighbours: int = 4, lists: bool = True
) -> Model:
    """Columns are drawn one after the other in any order, each by layers of its own.

    As in the paper, every column is discretised, columns are permuted anew for every training row, and each has an
    embedding and layers of its own. Unlike there, the layers of a column see the sum of the known cells' vectors
    rather than their concatenation, so that all columns share one running sum; and where many values of a wide column
    recur, the training rows that share a value tell about each other
    (:class:`ancestral.networks.columns.Profile`). Half of the rows keep the order in which scores are stated.

    Reference:
        Tiwald et al. TabularARGN: a flexible and efficient auto-regressive framework for generating high-fidelity
        synthetic data. 2025, arXiv:2501.12012.

    Args:
        width: hidden units per column.
        sums: size of the vector that sums up the known cells.
        depth: further residual layers per column.
        dropout: share of units dropped in training.
        neighbours: most training rows behind what is known of a recurring value.
        lists: list recurring values of wide columns. The model then holds a vector per such value that tells what its
            training rows had in common; switch it off where this is too much to give away.
    """
    return Model(
        Columns(lists=lists),
        RandomOrders("raster", 0.5),
        ColumnNetwork(width, sums, depth, dropout, neighbours),
        RaggedCategorical(),
        training=dict(lr=1e-2, batch_size=512, weight_decay=0.1, ema=0.999, epochs=8, min_steps=400, minutes=10.0),
    )
