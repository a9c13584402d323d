"""Training: the loop, its budget and schedule, the moving average of the weights, checkpoints, processes."""

from __future__ import annotations

from ancestral.training.config import TrainConfig
from ancestral.training.disk import DiskItems
from ancestral.training.loop import Callback, Training, train
from ancestral.training.report import History
from ancestral.training.source import ItemOrder, Items, Source, Windows, derive

__all__ = [
    "Callback",
    "DiskItems",
    "History",
    "ItemOrder",
    "Items",
    "Source",
    "TrainConfig",
    "Training",
    "Windows",
    "derive",
    "train",
]
