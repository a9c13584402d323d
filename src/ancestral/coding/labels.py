"""Class labels as a code of their own, about as short as their statistics allow.

Two predictors share the bits, weighed by how well they have done (a Bayesian mixture): the frequencies so far
(Krichevsky and Trofimov 1981, "The performance of universal encoding"), and "the same as the label before, or else
by frequency", which makes labels that are sorted, as those of folders are, nearly free. Sums and quotients of float64
only, so that every machine predicts the same.
"""

from __future__ import annotations

import numpy as np

from ancestral.coding.choosers import FAMILY, OTHER_NUMBERS, Decode, Encode
from ancestral.errors import StreamError


class _Predictor:
    """Probabilities of the next label, float64 ``[size]``."""

    def __init__(self, size: int):
        self.counts = np.full(size, 0.5)
        self.seen, self.repeats = 0, 0
        self.previous = -1
        self.weights = (0.5, 0.5)

    def _experts(self) -> tuple[np.ndarray, np.ndarray]:
        frequency = self.counts / (self.seen + 0.5 * len(self.counts))
        if self.previous < 0 or len(self.counts) == 1:
            return frequency, frequency
        again = (self.repeats + 0.5) / self.seen  # of seen - 1 pairs
        run = frequency * ((1 - again) / (1 - frequency[self.previous]))
        run[self.previous] = again
        return frequency, run

    def probabilities(self) -> np.ndarray:
        """Of the next label."""
        first, second = self._experts()
        return self.weights[0] * first + self.weights[1] * second

    def update(self, label: int) -> None:
        """Learn that the next label was this one."""
        first, second = (w * float(e[label]) for w, e in zip(self.weights, self._experts()))
        self.weights = (first / (first + second), second / (first + second))
        self.repeats += label == self.previous
        self.counts[label] += 1
        self.seen += 1
        self.previous = label


def encode_labels(labels: np.ndarray, size: int) -> bytes:
    """The code of numbers from 0 below ``size``, int64 ``[n]``, as words of a range coder."""
    coder, predictor = Encode(), _Predictor(size)
    if size > 1:
        for label in labels.astype(np.int32):
            coder.coder.encode(label[None], FAMILY, predictor.probabilities().astype(np.float32)[None])
            predictor.update(int(label))
    return coder.words()


def decode_labels(words: bytes, count: int, size: int) -> np.ndarray:
    """The ``count`` numbers, int64, that :func:`encode_labels` wrote.

    Raises:
        StreamError: other bytes.
    """
    coder, predictor = Decode(words), _Predictor(size)
    labels = np.zeros(count, np.int64)
    if size > 1:
        for i in range(count):
            try:
                labels[i] = coder.coder.decode(FAMILY, predictor.probabilities().astype(np.float32)[None])[0]
            except AssertionError as error:  # no label has this code
                raise StreamError(OTHER_NUMBERS) from error
            predictor.update(int(labels[i]))
    return labels
