"""Quality of synthetic and imputed tables, the same for every system.

python quality.py hide test.csv gaps.csv
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def hide(test: pd.DataFrame, share: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """The rows (all cells words) with ``share`` of the cells emptied, drawn at random; every row keeps one cell.

    Cells that are empty already stay so and are not counted as hidden.
    """
    rng = np.random.default_rng(seed)
    hidden = rng.random(test.shape) < share
    full = hidden.all(1)
    hidden[full, rng.integers(0, test.shape[1], int(full.sum()))] = False
    return test.mask(hidden, "")
