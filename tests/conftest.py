"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared(path: str) -> Path:
    """The file or folder ``path`` of the shared data beside the repository; skips the test where it is
    absent."""
    place = Path(__file__).resolve().parents[2] / "shared" / path
    if not place.exists():
        pytest.skip(f"shared/{path} is not beside the repository")
    return place


@pytest.fixture(name="shared")
def shared_fixture():
    """:func:`shared`, for tests that cannot import this file."""
    return shared
