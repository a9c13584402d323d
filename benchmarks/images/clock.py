"""Training budgets in processor time, so that other programs on the machine change nothing."""

from __future__ import annotations

import time
import types
from typing import Any
from unittest import mock


def processor_clock() -> Any:
    """A context in which ``minutes=`` of training are minutes of processor time."""
    return mock.patch("ancestral.training.loop.time", types.SimpleNamespace(perf_counter=time.process_time))
