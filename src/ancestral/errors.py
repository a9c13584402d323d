"""Errors a user can act on: each message is one sentence saying what is wrong, where, and what to do."""

from __future__ import annotations

import math


class AncestralError(Exception):
    """Base of every error that is the caller's to mend; the command line prints it without a trace."""


class DataError(AncestralError):
    """The given data cannot be used: missing, empty, damaged, of mixed kinds, or unlike the training data."""


class UnsupportedError(AncestralError):
    """The model's parts do not allow the verb; the message says which verbs and recipes do."""


def check_range(who: str, name: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number out of range, NaN included.

    Raises:
        DataError: it is below ``least``, above ``most``, or no number.
    """
    try:
        fits = least <= value <= most
    except TypeError:
        fits = False
    if not fits:
        span = f"at least {least}" if most == math.inf else f"from {least} to {most}"
        raise DataError(f"{who}: {name}={value!r} must be {span}")


class StreamError(AncestralError):
    """A compressed stream is damaged, of another model, or of another numerical result."""


class TrainingError(AncestralError):
    """Training cannot go on: a foreign checkpoint, a loss that is not finite, nothing to train on."""
