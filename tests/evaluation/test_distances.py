"""Distances of feature vectors, against independent implementations and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.errors import DataError
from ancestral.evaluation import distances


def clouds(seed: int, n: int = 90, m: int = 70, size: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(size, size))
    return rng.normal(size=(n, size)), rng.normal(0.3, 1.2, size=(m, size)) @ mixed


@settings(deadline=None, max_examples=30)  # the first call imports
@given(st.integers(0, 10_000))
def test_the_frechet_distance_is_that_of_the_matrix_square_root(seed: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    one, other = clouds(seed)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = linalg.sqrtm(first @ second)
    shift = one.mean(0) - other.mean(0)
    expected = shift @ shift + np.trace(first + second - 2 * root.real)
    assert distances.frechet_distance(one, other) == pytest.approx(expected, rel=1e-6)


def test_known_frechet_distances() -> None:
    one = np.random.default_rng(0).normal(size=(500, 4))
    assert distances.frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert distances.frechet_distance(one, one + np.array([3, 0, 0, 4])) == pytest.approx(25)
    # Scaled by c, a normal distribution is (1 - c)^2 tr(S) away if its mean stays.
    centred = one - one.mean(0)
    spread = np.trace(np.cov(centred, rowvar=False))
    assert distances.frechet_distance(centred, 2 * centred) == pytest.approx(spread)
    flat = np.c_[one[:, :1], one[:, :1]]  # a singular covariance
    assert distances.frechet_distance(flat, flat) == pytest.approx(0, abs=1e-6)


def test_the_extrapolated_distance_has_less_bias() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(20_000, 16))
    made = [rng.normal(size=(200, 16)) for _ in range(20)]
    plain = np.mean([distances.frechet_distance(real, m) for m in made])
    limit = np.mean([distances.frechet_limit(real, m, seed=i) for i, m in enumerate(made)])
    assert plain > 0.3 and abs(limit) < 0.3 * plain


def test_the_kernel_distance_is_its_definition_and_unbiased() -> None:
    one, other = clouds(3, 30, 20)
    kernel = lambda a, b: (a @ b / len(a) + 1) ** 3  # noqa: E731
    same = np.mean([kernel(a, b) for i, a in enumerate(one) for j, b in enumerate(one) if i != j])
    same += np.mean([kernel(a, b) for i, a in enumerate(other) for j, b in enumerate(other) if i != j])
    cross = np.mean([kernel(a, b) for a in one for b in other])
    assert distances.kernel_distance(one, other) == pytest.approx(same - 2 * cross)
    rng = np.random.default_rng(0)
    found = [distances.kernel_distance(rng.normal(size=(40, 3)), rng.normal(size=(30, 3))) for _ in range(300)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 300**0.5
    assert min(found) < 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_neighbourhoods_are_those_of_prdc(seed: int, k: int) -> None:
    prdc = pytest.importorskip("prdc")
    real, made = clouds(seed)
    expected = prdc.compute_prdc(real_features=real, fake_features=made, nearest_k=k)
    found = distances.neighbourhoods(real, made, k)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(float(value)), name


def test_neighbourhoods_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = clouds(5)
    whole = distances.neighbourhoods(real, made, 3), distances.kernel_distance(real, made)
    monkeypatch.setattr(distances, "_MOST_DISTANCES", 200)
    assert distances.neighbourhoods(real, made, 3) == whole[0]
    assert distances.kernel_distance(real, made) == pytest.approx(whole[1])


def test_what_neighbourhoods_of_one_distribution_come_to() -> None:
    rng = np.random.default_rng(2)
    real, made = rng.normal(size=(3000, 3)), rng.normal(size=(2000, 3))
    found = distances.neighbourhoods(real, made, 5)
    assert found.coverage == pytest.approx(distances.expected_coverage(3000, 2000, 5), abs=0.03)
    assert found.density == pytest.approx(1, abs=0.1)
    copies = distances.neighbourhoods(real, real, 5)
    assert copies.precision == copies.recall == copies.coverage == 1
    apart = distances.neighbourhoods(real, made + 100, 5)
    assert apart.precision == apart.recall == apart.density == apart.coverage == 0
    collapsed = distances.neighbourhoods(real, np.repeat(real[:1], 50, 0), 5)
    assert collapsed.precision == 1 and collapsed.recall < 0.01 and collapsed.coverage < 0.05


def test_known_inception_scores() -> None:
    assert distances.inception_score(np.tile([0.2, 0.8], (10, 1))) == pytest.approx(1)
    assert distances.inception_score(np.eye(5)[np.arange(50) % 5]) == pytest.approx(5)
    p = np.random.default_rng(0).dirichlet(np.ones(4), 30)
    entropy = -(p.mean(0) * np.log(p.mean(0))).sum() + (p * np.log(p)).sum(1).mean()
    assert distances.inception_score(p) == pytest.approx(np.exp(entropy))


def test_refusals() -> None:
    good = np.zeros((10, 3))
    for broken, message in (
        (np.zeros((10, 4)), "cannot be compared"),
        (np.zeros((1, 3)), "1 items are too few"),
        (np.full((10, 3), np.nan), "NaN or infinite"),
    ):
        with pytest.raises(DataError, match=message):
            distances.frechet_distance(good, broken)
    with pytest.raises(DataError, match="give at least 11"):
        distances.neighbourhoods(good, good, 10)
    with pytest.raises(DataError, match="k=0"):
        distances.neighbourhoods(good, good, 0)
    with pytest.raises(DataError, match="too few to extrapolate"):
        distances.frechet_limit(good, good)
    with pytest.raises(DataError, match="at least one image"):
        distances.inception_score(np.zeros((0, 3)))
