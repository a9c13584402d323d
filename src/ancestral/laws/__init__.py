"""The laws that every recipe keeps, as functions: run by the tests and by ``ancestral check FILE``.

Each law takes an :class:`Exam`, a small trained model of a recipe with its toy data, and raises :class:`LawError` with
one sentence if it is broken, or :class:`NotApplicable` if it has nothing to say about this model.
"""

from __future__ import annotations

from ancestral.laws.exam import Exam, LawError, NotApplicable, chi_square, log_probs, require
from ancestral.laws.features import check_causality, check_incremental
from ancestral.laws.run import LAWS, LawResult, check, examine

__all__ = [
    "LAWS",
    "Exam",
    "LawError",
    "LawResult",
    "NotApplicable",
    "check",
    "check_causality",
    "check_incremental",
    "chi_square",
    "examine",
    "log_probs",
    "require",
]
