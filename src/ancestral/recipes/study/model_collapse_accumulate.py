"""Models fitted on what models drew: replacing the data collapses, accumulating them does not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ancestral.errors import DataError
from ancestral.recipes.registry import Claim, study


@study(
    "model-collapse-accumulate",
    title="Is Model Collapse Inevitable? Breaking the Curse of Recursion by Accumulating Real and Synthetic Data",
    paper="arXiv:2404.01413",
    authors="Gerstgrasser, Schaeffer, Dey, Rafailov, et al. (2024)",
    tiny=dict(generations=3, seeds=2, rows=60),
    claim=Claim(
        "replacing real data with synthetic makes the test error grow with the generations, accumulating both keeps it "
        "bounded",
        "studies/model_collapse",
    ),
)
def model_collapse_accumulate(
    recipe: str = "",
    data: str = "",
    generations: int = 10,
    seeds: int = 5,
    rows: int = 400,
    features: int = 20,
    noise: float = 1.0,
    options: str = "{}",
) -> dict[str, Any]:
    """Each generation is fitted on draws of the last one: alone (replace), or with all data so far (accumulate).

    Without a recipe the model is linear regression with Gaussian features, the case with a closed form. Refitted on
    its own labels plus fresh noise the n-th model is ``w + sum_i X+ e_i`` when data are replaced and
    ``w + sum_i X+ e_i / i`` when they are accumulated (the features X stay the same), so that the expected squared
    error of a prediction is ``noise^2 d / (rows - d - 1)`` times ``n``, or times ``sum_i 1 / i^2 < pi^2 / 6``.

    With a recipe it is that model of ``data``: a tenth of the items is held out, and the error is its mean negative
    log-probability in bits per scalar.

    Reference:
        Gerstgrasser et al. Is model collapse inevitable? Breaking the curse of recursion by accumulating real and
        synthetic data. 2024, arXiv:2404.01413.

    Args:
        recipe: id of a library model; empty for linear regression.
        data: file or folder that the recipe's model learns.
        generations: models in a row, each fitted on what the one before drew.
        seeds: repetitions.
        rows: training rows; of ``data``, at most so many items.
        features: of the regression.
        noise: standard deviation of the regression's labels.
        options: arguments of the recipe and of training as JSON, for instance '{"steps": 200}'.

    Returns:
        ``replace`` and ``accumulate``: lists, one number per generation, of the mean test error over the seeds
        (``mean``), its standard deviation (``sd``) and, for regression, the expected error (``formula``).
    """
    if recipe:
        if not data:
            raise DataError("a study of a recipe needs data to learn; give data= a file or folder")
        runs = [_chains(recipe, data, generations, rows, options, seed) for seed in range(seeds)]
        unit = "bits per scalar"
    else:
        runs = [_regressions(generations, rows, features, noise, seed) for seed in range(seeds)]
        unit = "excess squared error"
    out: dict[str, Any] = {"error_unit": unit}
    for way in ("replace", "accumulate"):
        errors = np.array([run[way] for run in runs])
        sd = errors.std(0, ddof=1) if seeds > 1 else np.zeros(generations)
        out[way] = {"mean": errors.mean(0).tolist(), "sd": sd.tolist()}
        if not recipe:
            steps = np.arange(1, generations + 1)
            factor = steps if way == "replace" else np.cumsum(1 / steps**2)
            out[way]["formula"] = (noise**2 * features / (rows - features - 1) * factor).tolist()
    last, first = (out[w]["mean"][-1] for w in ("replace", "accumulate"))
    out["last_replace"], out["last_accumulate"], out["first"] = last, first, out["replace"]["mean"][0]
    return out


def _regressions(generations: int, rows: int, features: int, noise: float, seed: int) -> dict[str, list[float]]:
    """Excess squared error of every generation, the mean over fresh features known in closed form."""
    if rows <= features + 1:
        raise DataError(f"rows={rows} are too few for {features} features; give more than {features + 1}")
    rng = np.random.default_rng(seed)
    x, truth = rng.normal(size=(rows, features)), rng.normal(size=features)
    inverse = np.linalg.pinv(x)
    out: dict[str, list[float]] = {"replace": [], "accumulate": []}
    for way, errors in out.items():
        weights, labels = truth, np.zeros(rows)
        for generation in range(1, generations + 1):
            fresh = x @ weights + noise * rng.normal(size=rows)
            # Least squares on copies of the same features is least squares on the mean of their labels.
            labels = fresh if way == "replace" else labels + (fresh - labels) / generation
            weights = inverse @ labels
            errors.append(float(((weights - truth) ** 2).sum()))
    return out


def _chains(recipe: str, data: str, generations: int, rows: int, options: str, seed: int) -> dict[str, list[float]]:
    """Held-out bits per scalar of every generation of a library model."""
    import json

    from ancestral import api
    from ancestral.data import read, sniff
    from ancestral.data.base import joined

    kind = sniff(data)
    whole = read(data, kind)
    order = np.random.default_rng(seed).permutation(len(whole))[:rows]
    held = max(1, len(order) // 10)
    if len(order) < 20:
        raise DataError(f"{data} has {len(order)} items; a study needs at least 20")
    test, train = whole.take(order[:held]), whole.take(order[held:])
    settings = {"quiet": True, "validation": 0, **json.loads(options)}
    out: dict[str, list[float]] = {"replace": [], "accumulate": []}
    for way, errors in out.items():
        parts = [train.native()]
        for generation in range(generations):
            chosen = parts if way == "accumulate" else parts[-1:]
            model = api.fit(joined(chosen), recipe=recipe, modality=kind, seed=seed * 1000 + generation, **settings)
            errors.append(model.log_prob(test.native()).bits_per_dim())
            if not math.isfinite(errors[-1]):
                raise DataError(f"generation {generation + 1} gives the held-out items no probability")
            if generation + 1 < generations:
                parts.append(model.sample(len(train), seed=seed * 1000 + generation))
    return out
