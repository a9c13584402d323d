"""Distances between two sets of feature vectors, and scores of predicted classes: numbers only, in float64.

Which network the features are from, and of which images, is the caller's to say: see
:mod:`ancestral.evaluation.images`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ancestral.errors import DataError

_MOST_DISTANCES = 1 << 24  # held at a time: 128 MiB


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared 2-Wasserstein distance between normal distributions fitted to two sets of vectors.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))`` (Dowson and Landau 1982; for images Heusel et al. 2017,
    arXiv:1706.08500), with unbiased covariances. For finite sets it is too large on average, by about a
    constant over the number of vectors: compare only numbers of equal counts.

    Args:
        one, other: float ``[n, D]`` and ``[m, D]``, at least two vectors each.

    Raises:
        DataError: fewer than two vectors, or of different lengths.
    """
    one, other = _checked(one, other, 2)
    shift = one.mean(0) - other.mean(0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (one, other))
    # tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of R S2 R, R the symmetric root of S1.
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    common = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return max(float(shift @ shift + np.trace(first) + np.trace(second) - 2 * common), 0.0)


def frechet_limit(real: np.ndarray, made: np.ndarray, seed: int = 0, points: int = 8) -> float:
    """The Frechet distance that infinitely many made vectors would have: a line over ``1 / n``, at 0.

    Chong and Forsyth 2020 (arXiv:1911.07023), for random subsets of ``made`` of from half its size on; the
    real set stays whole, and its own bias with it.

    Raises:
        DataError: fewer than 20 made vectors.
    """
    real, made = _checked(real, made, 2)
    if len(made) < 20:
        raise DataError(f"{len(made)} vectors are too few to extrapolate from; give at least 20")
    chance = np.random.default_rng(seed)
    counts = np.unique(np.linspace(len(made) // 2, len(made), points).astype(int))
    found = [frechet_distance(real, made[chance.permutation(len(made))[:n]]) for n in counts]
    return float(np.polyfit(1 / counts, found, 1)[1])


def kernel_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Squared maximum mean discrepancy under the kernel ``(x . y / D + 1)^3``, unbiased (it can be below 0).

    The kernel inception distance of Binkowski et al. 2018 (arXiv:1801.01401), over the whole sets at once.

    Raises:
        DataError: fewer than two vectors, or of different lengths.
    """
    one, other = _checked(one, other, 2)

    def total(a: np.ndarray, b: np.ndarray) -> float:
        rows = max(1, _MOST_DISTANCES // len(b))
        return sum(float(((part @ b.T / a.shape[1] + 1) ** 3).sum()) for part in _parts(a, rows))

    def own(a: np.ndarray) -> float:
        diagonal = float((((a * a).sum(1) / a.shape[1] + 1) ** 3).sum())
        return (total(a, a) - diagonal) / (len(a) * (len(a) - 1))

    return own(one) + own(other) - 2 * total(one, other) / (len(one) * len(other))


@dataclass(frozen=True)
class Neighbourhoods:
    """How two sets lie among each other's nearest neighbours.

    Attributes:
        precision: share of the made vectors inside a ball around a real one that reaches to its k-th real neighbour.
        recall: share of the real vectors inside such a ball around a made one.
        density: mean number of real balls that a made vector is in, over k; may exceed 1.
        coverage: share of the real balls with a made vector inside.
        k: the neighbour that balls reach to.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    k: int


def neighbourhoods(real: np.ndarray, made: np.ndarray, k: int = 5) -> Neighbourhoods:
    """Precision and recall, density and coverage.

    Improved precision and recall are those of Kynkaanniemi et al. 2019 (arXiv:1904.06991), density and
    coverage those of Naeem et al. 2020 (arXiv:2002.09797). Density of two sets of one distribution is 1 on
    average; coverage is then ``1 - prod_i (n - i) / (n + m - i)`` for ``i`` from 1 to k, about ``1 - 2^-k`` for sets
    of equal size, and depends on the sizes.

    Args:
        real, made: float ``[n, D]`` and ``[m, D]``.
        k: neighbour that a ball reaches to, the vector itself not counted.

    Raises:
        DataError: k or fewer vectors in a set, or vectors of different lengths.
    """
    if k < 1:
        raise DataError(f"k={k} is no neighbour; give at least 1")
    real, made = _checked(real, made, k + 1)
    reach, reach_made = _reach(real, k), _reach(made, k)
    inside = np.zeros(len(made), int)  # real balls that a made vector is in
    recalled, covered = 0, 0
    begin = 0
    for part in _parts(real, max(1, _MOST_DISTANCES // len(made))):
        apart = _squared(part, made)
        hit = apart <= reach[begin : begin + len(part), None]
        inside += hit.sum(0)
        covered += int(hit.any(1).sum())
        recalled += int((apart <= reach_made).any(1).sum())
        begin += len(part)
    n = len(real)
    return Neighbourhoods(float((inside > 0).mean()), recalled / n, float(inside.mean()) / k, covered / n, k)


def expected_coverage(real: int, made: int, k: int = 5) -> float:
    """Coverage to expect when ``real`` and ``made`` vectors are of one distribution (arXiv:2002.09797)."""
    # None of the first k neighbours of a real vector, among real and made ones alike, is a made one.
    return 1 - math.prod((real - i) / (real + made - i) for i in range(1, k + 1))


def inception_score(probabilities: np.ndarray) -> float:
    """``exp(mean_x KL(p(y | x) || p(y)))``, from 1 to the number of classes (Salimans et al. 2016, arXiv:1606.03498).

    The whole set is used at once (the paper averages over ten parts, which gives less). It is too small on average for
    a finite set.

    Args:
        probabilities: float ``[n, K]``, rows that sum to 1.

    Raises:
        DataError: no rows.
    """
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or len(p) == 0:
        raise DataError("an inception score needs class probabilities of at least one image")
    tiny = np.finfo(np.float64).tiny
    gain = (p * (np.log(p.clip(tiny)) - np.log(p.mean(0).clip(tiny)))).sum(1)
    return float(np.exp(gain.mean()))


def _checked(one: np.ndarray, other: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1]:
        raise DataError(f"feature vectors of shapes {one.shape} and {other.shape} cannot be compared")
    if min(len(one), len(other)) < least:
        raise DataError(f"{min(len(one), len(other))} items are too few to compare; give at least {least}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise DataError("a feature vector has a NaN or infinite entry; check the feature network's weights")
    return one, other


def _parts(x: np.ndarray, rows: int) -> list[np.ndarray]:
    return [x[i : i + rows] for i in range(0, len(x), rows)]


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances ``[n, m]``."""
    centre = b.mean(0)  # less cancellation
    a, b = a - centre, b - centre
    return ((a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T).clip(0)


def _reach(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every vector to its k-th nearest other one, ``[n]``."""
    found, begin = [], 0
    for part in _parts(x, max(1, _MOST_DISTANCES // len(x))):
        apart = _squared(part, x)
        apart[np.arange(len(part)), begin + np.arange(len(part))] = -1.0  # itself comes first
        found.append(np.partition(apart, k, axis=1)[:, k])
        begin += len(part)
    return np.concatenate(found)
