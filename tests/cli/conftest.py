"""Fixtures of the command line's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with tiny data and a fitted model of each kind; tests do not write into it."""
    import cli_models

    folder = tmp_path_factory.mktemp("cli")
    cli_models.make(folder)
    return folder
