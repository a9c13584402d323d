"""What is particular to single image systems, beyond the laws."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ancestral.errors import DataError
from ancestral.laws import Exam
from ancestral.noise import Noise
from ancestral.recipes.image.next_patch_prediction import PatchLikelihood
from ancestral.recipes.registry import catalogue
from ancestral.space import Condition


def test_patches_shrink_to_single_codes() -> None:
    steps = PatchLikelihood(3, 0.5)
    assert [steps.side(p) for p in (0.0, 0.2, 0.26, 0.49, 0.5, 1.0)] == [4, 4, 2, 2, 1, 1]
    assert PatchLikelihood(1, 0.5).side(0.0) == 1


def test_a_patch_is_predicted_from_the_means_of_those_before() -> None:
    record = catalogue()["next-patch-prediction"]
    one = Exam(replace(record, tiny={**record.tiny, "patch": 1}), steps=20)
    generator, values = one.generator, one.items[:1]
    assert generator.space.shape == (4, 4)
    objective = PatchLikelihood(2, 0.5)

    def loss(codes: torch.Tensor, progress: float = 0.0) -> float:
        found = objective.loss(generator, codes.reshape(1, -1), Condition(), Noise.of(0, 1), progress)
        return float(found.detach())

    # Within a patch codes may trade places: neither the mean of the embeddings nor the one distribution notices.
    grid, traded, moved = (values.reshape(1, 4, 4).clone() for _ in range(3))
    grid[:, :2, :2] = torch.tensor([[0, 1], [2, 3]])
    traded[:, :2, :2] = torch.tensor([[3, 2], [1, 0]])
    moved[:, :2, 1:3] = torch.tensor([[3, 2], [1, 0]])
    assert loss(grid) == pytest.approx(loss(traded), abs=1e-5)
    assert loss(grid) != pytest.approx(loss(moved), abs=1e-3)
    # An image of one patch is scored by what the first place predicts, on each of its codes.
    small = Exam(record, steps=20)
    (codes,) = small.items[:1]
    first = small.generator.predict(codes[None], small.generator.order.scoring()).log_probs()[0, 0]  # type: ignore[attr-defined]
    found = objective.loss(small.generator, codes[None], Condition(), Noise.of(0, 1), 0.0)
    assert float(found.detach()) == pytest.approx(-float(first[codes].mean().detach()), abs=1e-5)
    assert loss(values, 1.0) == pytest.approx(-float(generator.log_prob(values).mean().detach()), abs=1e-5)


def test_patches_must_fit_the_codes() -> None:
    record = catalogue()["next-patch-prediction"]
    model = record(**{**record.tiny, "levels": 3})
    with pytest.raises(DataError, match="fewer levels"):
        model.fit(Exam(record).dataset, steps=10, quiet=True, validation=0, ema=None)
