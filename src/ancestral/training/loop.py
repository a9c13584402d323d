"""The training loop: one process or many, stopped and resumed without a trace.

All randomness is a function of (seed, step, process): the order of the items, the generator given to the
loss, and torch's global generators (dropout), which are seeded anew at every step and put back as they were
at the end. So a resumed run needs no saved generator, and two runs of one seed agree whatever was drawn in
between.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ancestral.errors import TrainingError
from ancestral.noise import hash64
from ancestral.training import checkpoint
from ancestral.training.config import TrainConfig
from ancestral.training.optimiser import Average, build_optimiser, gradient_norm
from ancestral.training.processes import Interrupt, Loss, start_accelerator
from ancestral.training.report import Bar, History, Ledger, MetricsLog, Row
from ancestral.training.source import ITEM_SEED, ItemOrder, Source, derive, fetch, fingerprint

Callback = Callable[[Row, "Training"], object]
_STOPS = ("", "callback", "interrupted")


def train(
    module: nn.Module,
    source: Source,
    config: TrainConfig,
    validation: Source | None = None,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Minimise ``module.loss`` over ``source``.

    Args:
        module: has ``loss(batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> scalar
            tensor``, the mean over the items of the batch. ``batch`` holds the source's tensors and
            ``"item_seed"``, int64 ``[B]``: randomness drawn from it (:class:`ancestral.noise.Noise`) is the
            same however the batch is split between processes, while ``generator`` is seeded per step and
            process. ``progress`` is the fraction of the budget used, in [0, 1] (1 in evaluations).
        source: the items to train on.
        config: budget, optimiser and bookkeeping. If ``config.checkpoint`` holds checkpoints, the run goes on
            from the newest, exactly as if it had never stopped.
        validation: items to evaluate on, always with the same random numbers and the averaged weights.
        callbacks: called as ``callback(row, training)`` after every row of metrics; a true result ends the
            run.

    Returns:
        What happened. The module is left in evaluation mode with the weights to use: those of the best
        evaluation if there is a validation set, else their moving average (or the last ones when ``ema`` is
        None).

    Several processes, started by ``accelerate launch`` or ``torchrun``, split each batch of ``batch_size``
    items between them. Ctrl-C finishes the step, saves a checkpoint and returns; a second one stops at once.

    Raises:
        TrainingError: nothing to train (on), a loss or gradient that is not finite, a checkpoint of another
            run.
    """
    return Training(module, source, config, validation, callbacks).run()


class Training:
    """A run in progress: what callbacks may look at.

    Attributes:
        module: the module being trained, with its present weights (see :meth:`averaged`).
        config: its settings.
        step: optimiser steps taken.
        progress: fraction of the budget used.
        history: rows so far.
    """

    def __init__(
        self,
        module: nn.Module,
        source: Source,
        config: TrainConfig,
        validation: Source | None = None,
        callbacks: Sequence[Callback] = (),
    ):
        for which, items in (("training", source), ("validation", validation)):
            if items is not None and len(items) == 0:
                raise TrainingError(f"the {which} set holds no items; give at least one")
        self.weights = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not self.weights:
            raise TrainingError("the module has no trainable parameters; there is nothing to train")
        self.module, self.config, self.history = module, config, History()
        self.step, self.progress = 0, 0.0
        self._source, self._validation, self._callbacks = source, validation, callbacks
        self._order = ItemOrder(len(source), config.batch_size, config.seed)
        self._total = config.total_steps(len(source))
        self._accelerator = start_accelerator()
        self._rank, self._world = self._accelerator.process_index, self._accelerator.num_processes
        if self._order.batch_size < self._world:
            raise TrainingError(
                f"a batch of {self._order.batch_size} items cannot be split between {self._world} processes; "
                "raise batch_size or start fewer processes"
            )
        # Alone, the device follows the weights; among several, each process has its own.
        self._device = next(iter(self.weights.values())).device if self._world == 1 else self._accelerator.device
        module.to(self._device)
        self._generator = torch.Generator(self._device)
        self._optimiser = build_optimiser(module, config)
        self._average = None if config.ema is None else Average(self.weights, config.ema)
        # What a checkpoint and the run that goes on from it must have in common.
        self._settings = {
            "seed": config.seed,
            "batch_size": self._order.batch_size,
            "items": self._order.items,
            "data": fingerprint(source) if config.checkpoint is not None else None,
            "average": self._average is not None,
            "validation": validation is not None,
        }
        self._best: dict[str, Tensor] | None = None
        self._failures = 0  # evaluations in a row without a better loss
        self._evaluated, self._evaluated_at = 0, 0.0  # step and second of the last evaluation
        self._evaluation_cost = 0.0  # seconds of the last evaluation
        self._ledger = Ledger(self._sum, config.lr)
        self._saved_step, self._saved_at = 0, 0.0
        self._asked = 0  # index into _STOPS
        self._interrupt = Interrupt()
        self._before = 0.0  # seconds of earlier sittings
        self._seconds = 0.0  # the clock all processes agree on, read once a step

    # ---------------------------------------------------------------- the run

    def run(self) -> History:
        """Train until the budget is used or something ends the run; see :func:`train`."""
        config = self.config
        self._began = self._mark = time.perf_counter()
        self._mark_step = self.step
        devices = [] if self._device.type in ("cpu", "mps") else [self._device]
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices, device_type=self._device.type if devices else "cuda"))
            stack.enter_context(self._interrupt)
            self._resume()
            bfloat16_on = self._device.type if config.precision == "bfloat16" else None
            self._loss = Loss(self.module, bfloat16_on)
            self._parallel = self._accelerator.prepare_model(self._loss, device_placement=False)
            if self._average is not None and self._world > 1 and self.step == 0:
                # Wrapping gave every process the first one's weights.
                self._average = Average(self.weights, self._average.decay)
            self._log = None
            if config.log is not None and self._rank == 0:
                self._log = MetricsLog(Path(config.log), self.history.rows)
                stack.callback(self._log.close)
            self._bar = Bar(config.quiet or self._rank != 0)
            stack.callback(self._bar.close)
            self.module.train()
            while not self._over():
                try:
                    self._advance()
                except KeyboardInterrupt:
                    if self._interrupt.asked:
                        raise
                    self._interrupt.asked = True
                    self._optimiser.zero_grad(set_to_none=True)
            self._finish()
        return self.history

    def _over(self) -> bool:
        """Whether to stop before another step; also reads the clock."""
        clock = self._before + time.perf_counter() - self._began
        asked = 2 if self._interrupt.asked else self._asked
        if self._world > 1:
            mine = torch.tensor([[clock, asked]], dtype=torch.float64, device=self._device)
            everyone = self._accelerator.gather(mine).tolist()
            clock, asked = everyone[0][0], int(max(each[1] for each in everyone))
        self._seconds = clock
        if self._failures >= (self.config.patience or math.inf):
            self.history.stopped = "patience"
        elif self.step > 0 and self._used(self.step, clock) >= 1:
            self.history.stopped = "budget"
        else:
            self.history.stopped = _STOPS[asked]
        return bool(self.history.stopped)

    def _used(self, step: float, seconds: float) -> float:
        """Fraction of the budget used after so many steps and seconds, which may exceed 1."""
        used = 0.0 if self._total is None else step / self._total
        if self.config.minutes is not None:
            # The last evaluation belongs to the budget too.
            limit = self.config.minutes * 60 - self._evaluation_cost
            used = max(used, seconds / limit if limit > 0 else math.inf)
        return used

    def _hurried(self) -> bool:
        """Whether it is the clock, rather than the steps, that uses the budget up."""
        return self.config.minutes is not None and (
            self._total is None or self._used(self.step, self._seconds) > self.step / self._total
        )

    def _advance(self) -> None:
        """One step, and the evaluation, row, checkpoint and callbacks that are due after it."""
        config = self.config
        # Halfway through the step, so that a warm-up does not begin with a step of length zero.
        middle = self._used(self.step + 0.5, self._seconds * (1 + 0.5 / max(self.step, 1)))
        self.progress = max(self.progress, min(middle, 1.0))
        self._update(self.progress)
        self.step += 1
        self._bar.move(self.progress, self._seconds)
        value = self._evaluate() if self._evaluation_due() else None
        row = None
        if value is not None or self.step % config.log_every == 0:
            row = self._row(value)
        if config.checkpoint is not None:
            waited = self._seconds - self._saved_at >= config.save_minutes * 60
            if self.step % config.save_every == 0 if config.save_every else waited:
                self._save()
        if row is not None:
            self._call(row)

    def _finish(self) -> None:
        """Last evaluation and row, last checkpoint, and the weights to use."""
        stopped = self.history.stopped
        row = None
        # An interrupted run leaves its books as they are, so that it can go on as if nothing had happened.
        if stopped != "interrupted" and self.step > 0:
            value = None
            if self._validation is not None and self._evaluated != self.step:
                value = self._evaluate()
            if value is not None or self._ledger:
                row = self._row(value)
        self.history.steps = self.step
        self.history.seconds = self._before + time.perf_counter() - self._began
        if self.config.checkpoint is not None and (row is not None or self._saved_step != self.step):
            self._save()
        if row is not None:
            self._call(row)
        with torch.no_grad():
            if self._best is not None:
                present = checkpoint.module_tensors(self.module)
                for name, tensor in self._best.items():
                    present[name].copy_(tensor)
            elif self._average is not None and self.step > 0:
                torch._foreach_copy_(list(self.weights.values()), self._average.values)
        self.module.eval()

    def _call(self, row: Row) -> None:
        for callback in self._callbacks:
            if callback(row, self):
                self._asked = 1

    # ---------------------------------------------------------------- one step

    def _batch(self, source: Source, pieces: list[tuple[int, Tensor]], seeds: Tensor) -> dict[str, Tensor]:
        batch = fetch(source, pieces)
        batch[ITEM_SEED] = seeds
        return {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()}

    def _seed(self, *parts: int | str) -> None:
        seed = derive(self.config.seed, *parts)
        self._generator.manual_seed(seed)
        # Not torch.manual_seed, which walks over every kind of device on every call.
        torch.default_generator.manual_seed(seed)
        if self._device.type != "cpu":
            torch.get_device_module(self._device).manual_seed(seed)

    def _update(self, progress: float) -> None:
        config, whole = self.config, self._order.batch_size
        lo, hi = self._order.share(self.step, self._rank, self._world)
        parts = min(config.accumulate, hi - lo)
        total = None
        for part in range(parts):
            first, last = lo + (hi - lo) * part // parts, lo + (hi - lo) * (part + 1) // parts
            seeds = hash64(torch.arange(first, last) ^ derive(config.seed, "item"))
            batch = self._batch(self._source, self._order.pieces(first, last), seeds)
            self._seed("loss", self.step, part, self._rank)
            share = (last - first) / whole
            with contextlib.ExitStack() as stack:
                if part < parts - 1:
                    stack.enter_context(self._accelerator.no_sync(self._parallel))
                loss = self._parallel(batch, self._generator, progress)
                if total is None and (loss.ndim != 0 or not loss.requires_grad):
                    raise TrainingError(
                        f"module.loss gave a tensor of shape {list(loss.shape)} (gradient: "
                        f"{loss.requires_grad}), not one number that depends on the trainable parameters"
                    )
                # Gradients are averaged over the processes; shares may differ by an item.
                weight = share * self._world
                self._accelerator.backward(loss if weight == 1 else loss * weight)
            total = loss.detach() * share if total is None else total + loss.detach() * share
        assert total is not None
        gradients = [p.grad for p in self.weights.values() if p.grad is not None]
        norm = gradient_norm(gradients)
        self._ledger.add(total, norm)
        if self._world == 1 and self._device.type == "cpu":
            # Looking is free here, and keeps the weights clean when there is nothing to go on with.
            self._ledger.look(self.step + 1)
            scale = 1.0 if config.clip is None else config.clip / (self._ledger.seen[-1][1] + 1e-6)
            if scale < 1:
                torch._foreach_mul_(gradients, scale)
        elif config.clip is not None:
            torch._foreach_mul_(gradients, (config.clip / (norm + 1e-6)).clamp(max=1.0))
        for group in self._optimiser.param_groups:
            group["lr"] = config.rate(progress)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()

    def _sum(self, values: list[float]) -> list[float]:
        """Elementwise sum over the processes."""
        if self._world == 1:
            return values
        mine = torch.tensor(values, dtype=torch.float64, device=self._device)
        return self._accelerator.reduce(mine, "sum").tolist()

    # ---------------------------------------------------------------- evaluation and metrics

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Inside the block the module is in evaluation mode with the averaged weights, to draw samples."""
        training = self.module.training
        self.module.eval()
        try:
            with contextlib.nullcontext() if self._average is None else self._average.applied():
                yield self.module
        finally:
            self.module.train(training)

    def _evaluation_due(self) -> bool:
        if self._validation is None:
            return False
        if self.step == self._total:
            return True
        if self.config.eval_every is not None:
            return self.step % self.config.eval_every == 0
        if self._hurried() and self._seconds - self._evaluated_at <= 4 * self._evaluation_cost:
            return False  # a slow evaluation may take a fifth of the time, not more
        last = self._used(self._evaluated, self._evaluated_at)
        return int(20 * self._used(self.step, self._seconds)) > int(20 * last)

    @torch.no_grad()
    def _evaluate(self) -> float:
        """Mean validation loss per item, the same random numbers every time; remembers the best weights."""
        assert self._validation is not None
        began = time.perf_counter()
        self._ledger.look(self.step)
        items = min(len(self._validation), self.config.eval_items or len(self._validation))
        losses, counts = [], []
        with self.averaged():
            for start in range(0, items, self._order.batch_size):
                size = min(self._order.batch_size, items - start)
                lo, hi = (start + size * (self._rank + k) // self._world for k in range(2))
                if lo == hi:
                    continue
                indices = torch.arange(lo, hi)
                seeds = hash64(indices ^ derive(self.config.seed, "validation item"))
                self._seed("validation", start, self._rank)
                losses.append(self._loss(self._batch(self._validation, [(0, indices)], seeds), self._generator, 1.0))
                counts.append(hi - lo)
            values = torch.stack(losses).tolist() if losses else []
            value = self._sum([math.fsum(v * n for v, n in zip(values, counts)) / items])[0]
            if not math.isfinite(value):
                raise TrainingError(
                    f"the validation loss is {value} at step {self.step}: the validation set may hold "
                    "values that the model gives no probability"
                )
            if self.history.best_loss is None or value < self.history.best_loss:
                self.history.best_loss, self.history.best_step, self._failures = value, self.step, 0
                self._best = {name: t.clone() for name, t in checkpoint.module_tensors(self.module).items()}
            else:
                self._failures += 1
        self._evaluated, self._evaluated_at = self.step, self._seconds
        self._evaluation_cost = self._sum([time.perf_counter() - began])[0] / self._world
        self._mark += time.perf_counter() - began
        return value

    def _row(self, value: float | None) -> Row:
        """Close the books since the last row."""
        self._ledger.look(self.step)
        now = time.perf_counter()
        loss, norm = self._ledger.close()
        speed = (self.step - self._mark_step) * self._order.batch_size / max(now - self._mark, 1e-9)
        row: Row = {
            "step": self.step,
            "epoch": self.step * self._order.batch_size / self._order.items,
            "loss": loss,
            "lr": self.config.rate(self.progress),
            "grad_norm": norm,
            "val_loss": value,
            "items_per_s": round(speed, 3),
            "seconds": round(self._before + now - self._began, 3),
        }
        self._mark, self._mark_step = now, self.step
        self.history.rows.append(row)
        self._bar.show(row)
        if self._log is not None:
            self._log.write(row)
        return row

    # ---------------------------------------------------------------- checkpoints

    def _save(self) -> None:
        began = time.perf_counter()
        self._ledger.look(self.step)  # never save what is not finite
        self._saved_step, self._saved_at = self.step, self._seconds
        if self._rank == 0:
            names: dict[Tensor, str] = {p: name for name, p in self.weights.items()}
            parts = {
                "model": checkpoint.module_tensors(self.module),
                "optimiser": checkpoint.optimiser_tensors(self._optimiser, names),
            }
            if self._average is not None:
                parts["average"] = self._average.state()
            if self._best is not None:
                parts["best"] = self._best
            state = {
                "step": self.step,
                "epoch": self.step * self._order.batch_size // self._order.items,
                "offset": self.step * self._order.batch_size % self._order.items,
                "seconds": self._before + began - self._began,
                "settings": self._settings,
                "rows": self.history.rows,
                "pending": self._ledger.seen,
                "average_updates": 0 if self._average is None else self._average.updates,
                "best_loss": self.history.best_loss,
                "best_step": self.history.best_step,
                "failures": self._failures,
                "evaluated": [self._evaluated, self._evaluated_at, self._evaluation_cost],
                "versions": {"torch": torch.__version__},
            }
            checkpoint.save(Path(str(self.config.checkpoint)), parts, state, self.config.keep)
        self._accelerator.wait_for_everyone()
        self._mark += time.perf_counter() - began

    def _resume(self) -> None:
        if self.config.checkpoint is None:
            return
        folder = Path(self.config.checkpoint)
        found = checkpoint.checkpoints(folder)
        step = int(found[-1].name[5:]) if found else 0
        if self._sum([float(step)])[0] != step * self._world:
            raise TrainingError(
                f"the processes see different checkpoints in {folder}; use a folder that all machines share"
            )
        if self._rank == 0:
            checkpoint.sweep(folder)
        if not found:
            return
        path = found[-1]
        parts, state = checkpoint.load(path)
        present = checkpoint.module_tensors(self.module)
        checkpoint.match(path, parts["model"], present)
        checkpoint.match_settings(path, state["settings"], self._settings)
        with torch.no_grad():
            for name, tensor in present.items():
                tensor.copy_(parts["model"][name])
            if self._average is not None:
                checkpoint.match(path, parts["average"], self._average.state(), "the trainable parameters")
                for name, tensor in self._average.state().items():
                    tensor.copy_(parts["average"][name])
                self._average.updates = state["average_updates"]
        checkpoint.restore_optimiser(self._optimiser, self.weights, parts["optimiser"])
        if "best" in parts:
            self._best = {name: tensor.to(self._device) for name, tensor in parts["best"].items()}
        self.step = self._mark_step = self._saved_step = state["step"]
        self.history = History(
            rows=state["rows"],
            steps=self.step,
            best_loss=state["best_loss"],
            best_step=state["best_step"],
            resumed_from=self.step,
        )
        self._ledger.seen = [(loss, norm) for loss, norm in state["pending"]]
        self._failures = state["failures"]
        self._evaluated, self._evaluated_at, self._evaluation_cost = state["evaluated"]
        self._before = self._seconds = self._saved_at = state["seconds"]
