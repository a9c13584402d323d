"""What a run leaves to read: the history, the JSON-lines file, the progress bar."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from ancestral.errors import DataError, TrainingError
from ancestral.files import atomic_path

Row = dict[str, Any]


@dataclass
class History:
    """What happened in a training run.

    ``rows`` are the lines of the metrics file: ``step``, ``epoch`` (float), ``loss`` (mean since the row
    before, None if there was no step, in the module's units, usually nats), ``lr``, ``grad_norm`` (mean,
    before clipping), ``val_loss`` (None when not evaluated at that step), ``items_per_s`` (evaluations and
    checkpoints not counted), ``seconds`` (all sittings).
    """

    rows: list[Row] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    stopped: str = ""
    """Why it ended: ``"budget"``, ``"patience"``, ``"interrupted"`` or ``"callback"``."""
    best_loss: float | None = None
    """Lowest validation loss; the module holds the weights that gave it."""
    best_step: int | None = None
    resumed_from: int | None = None
    """Step of the checkpoint that this sitting started from."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == "interrupted"

    def column(self, name: str) -> list[Any]:
        """One metric over the rows that have it."""
        return [row[name] for row in self.rows if row.get(name) is not None]


class Ledger:
    """Losses and gradient norms per step: left on the device until looked at, then insisted to be finite.

    Args:
        total: elementwise sum of a list of numbers over the processes.
        lr: learning rate, for the message.
    """

    def __init__(self, total: Callable[[list[float]], list[float]], lr: float):
        self._total, self._lr = total, lr
        self._fresh: list[tuple[Tensor, Tensor]] = []
        self.seen: list[tuple[float, float]] = []
        """(loss over all processes, gradient norm) of the steps since the books were closed."""

    def __bool__(self) -> bool:
        return bool(self._fresh or self.seen)

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Note one step: this process's share of the loss, and the norm."""
        self._fresh.append((loss, norm))

    def look(self, step: int) -> None:
        """Read the steps up to ``step``; all processes call this together.

        Raises:
            TrainingError: a loss or a norm is not finite.
        """
        if not self._fresh:
            return
        losses = self._total(torch.stack([loss for loss, _ in self._fresh]).tolist())
        norms = torch.stack([norm for _, norm in self._fresh]).tolist()
        first = step - len(self._fresh) + 1
        self._fresh.clear()
        for number, (loss, norm) in enumerate(zip(losses, norms), start=first):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                what = f"gradient (of a loss of {loss:.4g})" if math.isfinite(loss) else "loss"
                raise TrainingError(
                    f"the {what} is not finite at step {number}; lower lr (now {self._lr:g}), keep clip on, "
                    "or look for extreme values in the data"
                )
            self.seen.append((loss, norm))

    def close(self) -> tuple[float | None, float | None]:
        """Mean loss and norm since the last call; None if there was no step."""
        seen, self.seen = self.seen, []
        if not seen:
            return None, None
        return math.fsum(loss for loss, _ in seen) / len(seen), math.fsum(norm for _, norm in seen) / len(seen)


class MetricsLog:
    """A JSON-lines file, one row a line, flushed line by line.

    It starts with the rows of the history so far: lines that a killed run wrote after its last checkpoint go.
    """

    def __init__(self, path: Path, rows: list[Row]):
        with atomic_path(path) as scratch:
            scratch.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        try:
            self._file: TextIO = path.open("a", encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}; choose another log file") from error

    def write(self, row: Row) -> None:
        """Append one line."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Bar:
    """A progress bar over the budget with losses, speed and time left; silent away from a terminal."""

    def __init__(self, quiet: bool):
        from rich.console import Console

        self._stack = contextlib.ExitStack()
        self._progress: Any = None
        self._validation = ""
        console = Console(stderr=True)
        if quiet or not console.is_terminal:
            return
        from rich import progress as rich_progress

        self._progress = self._stack.enter_context(
            rich_progress.Progress(
                rich_progress.BarColumn(bar_width=16),
                rich_progress.TaskProgressColumn(),
                rich_progress.TextColumn("{task.fields[left]} left"),
                rich_progress.TextColumn("{task.fields[metrics]}"),
                console=console,
                refresh_per_second=4,
            )
        )
        self._task = self._progress.add_task("", total=1.0, left="-:--", metrics="")

    def move(self, used: float, seconds: float) -> None:
        """Show the fraction of the budget used after ``seconds``."""
        if self._progress is not None:
            left = int(seconds * (1 - used) / used) if used > 0 else 0
            clock = (
                f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
                if left >= 3600
                else f"{left // 60}:{left % 60:02d}"
            )
            self._progress.update(self._task, completed=used, left=clock)

    def show(self, row: Row) -> None:
        """Show the newest metrics."""
        if self._progress is not None:
            text = f"step {row['step']}"
            if row["loss"] is not None:
                text += f"  loss {row['loss']:.4f}"
            if row["val_loss"] is not None:
                self._validation = f"  validation {row['val_loss']:.4f}"
            self._progress.update(self._task, metrics=text + self._validation + f"  {row['items_per_s']:.0f} items/s")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        if self._progress is not None:
            self._progress.console.print(text)

    def close(self) -> None:
        """Take the bar down."""
        self._stack.close()
