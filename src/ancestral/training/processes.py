"""What several processes and Ctrl-C need: the accelerator, the wrapped loss, the request to stop."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ancestral.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator


class Loss(nn.Module):
    """What is wrapped for several processes: its forward is the module's loss."""

    def __init__(self, module: nn.Module, bfloat16_on: str | None):
        super().__init__()
        self.module = module
        # Layers may rest, so that unused parameters must be looked for; looking in vain is warned about.
        self.resting = nn.Parameter(torch.zeros(()))
        self._bfloat16_on = bfloat16_on

    def forward(self, batch: dict[str, Tensor], generator: torch.Generator, progress: float) -> Tensor:
        loss: Any = self.module.loss  # any module with such a method
        if self._bfloat16_on is None:
            return loss(batch, generator, progress)
        with torch.autocast(self._bfloat16_on, torch.bfloat16):
            return loss(batch, generator, progress).float()


class Interrupt:
    """Turns the first Ctrl-C into a request; the second raises KeyboardInterrupt."""

    asked = False
    _previous: Any = None

    def __enter__(self) -> Interrupt:
        # Only the main thread receives signals and may say what they do.
        with contextlib.suppress(ValueError):
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def start_accelerator() -> Accelerator:
    """Join the processes that ``accelerate launch`` or ``torchrun`` started, or be the only one.

    Raises:
        TrainingError: a kind of launch, or a precision, that the loop does not serve.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    # Without this, accelerate overlooks the processes of torchrun on a machine that has only CPUs.
    cpu = not torch.accelerator.is_available()
    handler = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(cpu=cpu, device_placement=False, kwargs_handlers=[handler])
    kind = accelerator.distributed_type.value
    if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "XLA") or accelerator.mixed_precision in ("fp16", "fp8"):
        raise TrainingError(
            f"training under {kind} with {accelerator.mixed_precision} precision is not available; "
            "launch plain data-parallel processes with precision no or bf16"
        )
    if accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError(
            "several processes were started but they do not see each other; on CPUs set ACCELERATE_USE_CPU=1"
        )
    if accelerator.num_processes > 1:
        atexit.register(_leave)  # an exit with its threads alive may abort
    return accelerator


def _leave() -> None:
    """Leave the group of processes, if that has not been done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
