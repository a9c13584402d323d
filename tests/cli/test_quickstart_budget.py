"""The quickstart ends within two minutes, also on slower machines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestral.quickstart import AFTER, LIMIT, MOST_MINUTES, _speed, affordable, digits


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 40), st.floats(1e-4, 0.05), st.integers(1, 1000))
def test_training_takes_what_is_left(spent: float, per_item: float, items: int) -> None:
    minutes = affordable(spent, per_item, items)
    rest = AFTER * per_item * items
    assert 0.1 <= minutes <= MOST_MINUTES
    if spent + rest + 6 <= LIMIT:
        assert spent + 60 * minutes + rest <= LIMIT + 1e-6 < 120


def test_slower_machines_train_for_less() -> None:
    assert affordable(5, 0.005, 360) == MOST_MINUTES
    assert affordable(10, 0.03, 360) == pytest.approx((LIMIT - 10 - AFTER * 10.8) / 60)


def test_speed_is_measured() -> None:
    train, test = digits()
    assert 0 < _speed(train, test, 0) < 5
