"""Every law over every recipe, at its tiny size."""

from __future__ import annotations

import functools

import pytest

from ancestral.laws import LAWS, Exam, examine
from ancestral.recipes.registry import catalogue

NAMES = list(catalogue())


@functools.cache
def exam(name: str) -> Exam:
    return Exam(catalogue()[name])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NAMES)
def test_law(name: str, law: str) -> None:
    result = examine(exam(name), law)
    if result.status == "not applicable":
        pytest.skip(result.detail)
    if result.status == "xfail":
        pytest.xfail(result.detail)
    assert result.status == "ok", result.detail


@pytest.mark.parametrize("name", NAMES)
def test_laws_that_must_apply(name: str) -> None:
    """A recipe on toy data that can be enumerated has no way around the central laws."""
    if exam(name).model.tokenizer.many_codes:
        pytest.skip("its items are written in strings too many to count; gpt has the same network and head")
    if not exam(name).generator.space.discrete:
        assert not exam(name).generator.head.finite and exam(name).model.kind != "exact"
        return
    if exam(name).generator.space.largest > 256:
        return  # the bytes of a file
    assert len(exam(name).everything) > 1
    assert exam(name).generator.head.finite
