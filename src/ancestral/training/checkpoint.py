"""Checkpoints: one folder per step, of safetensors and JSON, that appears whole or not at all.

::

    FOLDER/step-00001200/model.safetensors      parameters and buffers as they are
                         average.safetensors    moving average of the trainable parameters, if kept
                         optimiser.safetensors  AdamW's state, "<quantity>/<parameter name>"
                         best.safetensors       best weights and buffers so far, if there is a validation set
                         state.json             step, clock, settings, history

No state of a random generator is needed: all randomness is a function of (seed, step, process), see
``loop.py``.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ancestral.errors import TrainingError
from ancestral.files import atomic_path

FORMAT = 1
Tensors = dict[str, Tensor]


def module_tensors(module: nn.Module) -> Tensors:
    """Parameters (each once, also when shared) and persistent buffers, by name."""
    content = module.state_dict()
    strange = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strange:
        raise TrainingError(f"cannot checkpoint {strange[0]!r}, which is not a tensor; keep it in a buffer")
    found: Tensors = {name: p.detach() for name, p in module.named_parameters()}
    found.update((name, b.detach()) for name, b in module.named_buffers() if name in content)
    return found


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: dict[Tensor, str]) -> Tensors:
    """The optimiser's state as ``"<quantity>/<parameter name>"``."""
    return {
        f"{key}/{names[parameter]}": value
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, weights: dict[str, nn.Parameter], saved: Tensors) -> None:
    """Put back what :func:`optimiser_tensors` gave."""
    fused = all(group.get("fused") for group in optimiser.param_groups)
    for key, value in saved.items():
        quantity, name = key.split("/", 1)
        if name not in weights:
            raise TrainingError(f"the checkpoint trains {name!r}, which is frozen here; give another checkpoint folder")
        parameter = weights[name]
        # An optimiser that is not fused counts its steps on the CPU.
        device = "cpu" if quantity == "step" and not fused else parameter.device
        optimiser.state[parameter][quantity] = value.to(device)


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and alone in its storage, as safetensors wants it."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name) and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def sweep(folder: Path) -> None:
    """Remove what a killed process left of a checkpoint it was writing."""
    for path in folder.glob(".step-*") if folder.is_dir() else ():
        shutil.rmtree(path, ignore_errors=True)


def save(folder: Path, parts: dict[str, Tensors], state: dict[str, Any], keep: int) -> Path:
    """Write one checkpoint and remove all but the newest ``keep``.

    Args:
        parts: tensors by file name without its ending.
        state: JSON content; ``state["step"]`` names the checkpoint.
    """
    target = folder / f"step-{state['step']:08d}"
    with atomic_path(target, directory=True) as scratch:
        for part, tensors in parts.items():
            save_file({name: _plain(t) for name, t in tensors.items()}, scratch / f"{part}.safetensors")
        text = json.dumps({"format": FORMAT, "parts": sorted(parts), **state}, ensure_ascii=False, allow_nan=False)
        (scratch / "state.json").write_text(text + "\n", encoding="utf-8")
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The parts and the state of one checkpoint.

    Raises:
        TrainingError: damaged, or written by a later version.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if state["format"] != FORMAT:
            raise TrainingError(
                f"checkpoint {path} has format {state['format']}, this version of ancestral reads {FORMAT}; "
                "use the version that wrote it, or another checkpoint folder"
            )
        parts = {part: load_file(path / f"{part}.safetensors") for part in state["parts"]}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise TrainingError(
            f"checkpoint {path} is damaged ({error}); remove that folder to go on from the one before it"
        ) from error
    return parts, state


def match(path: Path, saved: Tensors, present: Tensors, what: str = "the model") -> None:
    """Refuse tensors of other names, shapes or types than ``present``.

    Raises:
        TrainingError: naming the first difference.
    """
    difference = None
    for name in sorted(saved.keys() ^ present.keys()):
        difference = f"{name!r} is only in {'the checkpoint' if name in saved else what}"
        break
    else:
        for name, tensor in present.items():
            other = saved[name]
            if other.shape != tensor.shape or other.dtype != tensor.dtype:
                difference = (
                    f"{name!r} is {other.dtype} {list(other.shape)} there and "
                    f"{tensor.dtype} {list(tensor.shape)} in {what}"
                )
                break
    if difference:
        raise TrainingError(
            f"checkpoint {path} belongs to another model ({difference}); "
            "give another checkpoint folder, or the settings it was made with"
        )


def match_settings(path: Path, saved: dict[str, Any], present: dict[str, Any]) -> None:
    """Refuse a run whose data or order of data is not the checkpoint's.

    Raises:
        TrainingError: naming the first difference.
    """
    for name, value in present.items():
        if saved.get(name) != value:
            raise TrainingError(
                f"checkpoint {path} belongs to another run ({name} was {saved.get(name)} and is {value} "
                "now); give another checkpoint folder, or the settings and data it was made with"
            )
