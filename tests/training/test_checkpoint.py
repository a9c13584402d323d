from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_toys import Denoiser, Scale, data

from ancestral.errors import TrainingError
from ancestral.training import Items, TrainConfig, checkpoint, train

SCRIPT = Path(__file__).with_name("training_toys.py")
SETTINGS = {"steps": 24, "batch_size": 16, "lr": 0.01, "log_every": 1, "eval_every": 4, "ema": 0.9}


def start(settings: dict, **environment: str) -> subprocess.Popen:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen([sys.executable, str(SCRIPT), json.dumps(settings)], env=variables)


def launched(settings: dict) -> subprocess.Popen:
    """Two processes that ``accelerate launch`` starts; without GPUs they run on the CPU, over gloo."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*launch, str(SCRIPT), json.dumps(settings)], env=variables)


def two_processes() -> list[dict[str, str]]:
    """The environment of each of two processes that train together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{**world, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def assert_equal_files(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_kill_and_resume_equals_a_straight_run_bit_for_bit(tmp_path):
    """37 items, batches of 16: the kill at step 13 is in epoch 5, the checkpoint of step 10 in epoch 4."""
    common = {**SETTINGS, "noisy": True, "save_every": 5}
    straight = start({**common, "checkpoint": str(tmp_path / "a"), "result": str(tmp_path / "a-result")})
    killed = {**common, "checkpoint": str(tmp_path / "b"), "log": str(tmp_path / "log.jsonl")}
    assert start({**killed, "kill_at": 13, "result": str(tmp_path / "none")}).wait(120) == -signal.SIGKILL
    assert straight.wait(120) == 0
    assert not (tmp_path / "none.json").exists()
    assert [path.name for path in checkpoint.checkpoints(tmp_path / "b")] == [
        "step-00000005",
        "step-00000010",
    ]
    (tmp_path / "b" / ".step-00000015.x").mkdir()  # as if killed while writing
    assert start({**killed, "result": str(tmp_path / "b-result")}).wait(120) == 0

    assert_equal_files(tmp_path / "a-result.safetensors", tmp_path / "b-result.safetensors")
    names = [path.name for path in sorted((tmp_path / "b" / "step-00000024").iterdir())]
    assert names == [
        "average.safetensors", "best.safetensors", "model.safetensors", "optimiser.safetensors", "state.json",
    ]  # fmt: skip
    for name in names[:-1]:
        assert_equal_files(tmp_path / "a" / "step-00000024" / name, tmp_path / "b" / "step-00000024" / name)
    first, second = (json.loads((tmp_path / f"{which}-result.json").read_text()) for which in "ab")
    assert first["rows"] == second["rows"] and len(first["rows"]) == 24
    assert first["resumed"] is None and second["resumed"] == 10
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert not list((tmp_path / "b").glob(".*"))


@pytest.mark.parametrize(("accumulate", "launcher"), [(1, "accelerate"), (2, "environment")])
def test_two_processes_equal_one(tmp_path, accumulate, launcher):
    """15 items a step make shares of 7 and 8; some layers rest; the processes start from other weights."""
    settings = {**SETTINGS, "steps": 12, "batch_size": 15, "accumulate": accumulate}
    one = start({**settings, "accumulate": 1, "result": str(tmp_path / "one")})
    settings |= {"checkpoint": str(tmp_path / "checkpoints"), "result": str(tmp_path / "two")}
    pair = [launched(settings)] if launcher == "accelerate" else [start(settings, **w) for w in two_processes()]
    assert {process.wait(120) for process in (one, *pair)} == {0}
    first, second = (json.loads((tmp_path / f"{name}.json").read_text())["rows"] for name in ("one", "two"))
    assert len(first) == 12
    for left, right in zip(first, second, strict=True):
        assert (left["val_loss"] is None) == (right["val_loss"] is None)
        known = {name: value for name, value in right.items() if value is not None}
        assert {name: left[name] for name in known} == pytest.approx(known, rel=1e-5, abs=1e-6)
    weights = [load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-5), name
    # One process can go on from what two have saved.
    torch.manual_seed(1)
    module = Denoiser(noisy=False)
    del settings["result"]
    history = train(module, data(), TrainConfig(**settings, quiet=True), data(11))
    assert history.resumed_from == 12
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in module.state_dict().items())


def config(folder: Path, **settings) -> TrainConfig:
    return TrainConfig(**{"steps": 4, "batch_size": 4, "checkpoint": folder, "quiet": True, **settings})


def test_a_finished_run_is_restored_and_a_larger_budget_goes_on(tmp_path):
    source = Items(values=torch.arange(8.0))
    module, again = Scale(), Scale()
    train(module, source, config(tmp_path))
    history = train(again, source, config(tmp_path))
    assert history.resumed_from == 4 and history.stopped == "budget"
    assert torch.equal(module.weight, again.weight)
    history = train(again, source, config(tmp_path, steps=8, log_every=1))
    assert history.steps == 8 and history.rows[-4]["lr"] > 1e-4  # half-way down the new schedule
    assert len(checkpoint.checkpoints(tmp_path)) == 2


def test_the_last_k_are_kept(tmp_path):
    train(Scale(), Items(values=torch.ones(4)), config(tmp_path, steps=9, save_every=2, keep=3))
    assert [p.name for p in checkpoint.checkpoints(tmp_path)] == [f"step-0000000{k}" for k in (6, 8, 9)]


def test_foreign_checkpoints_are_refused(tmp_path):
    source = Items(values=torch.arange(8.0))
    train(Scale(), source, config(tmp_path))

    class Wider(Scale):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 1))

    class Other(Scale):
        def __init__(self):
            super().__init__()
            self.more = nn.Parameter(torch.zeros(1))

    with pytest.raises(TrainingError, match=r"another model \('weight' is torch.float32 \[1\] there and .*\[2, 1\]"):
        train(Wider(), source, config(tmp_path))
    with pytest.raises(TrainingError, match=r"another model \('more' is only in the model"):
        train(Other(), source, config(tmp_path))
    for settings, name in (
        ({"seed": 1}, "seed"),
        ({"batch_size": 2}, "batch_size"),
        ({"ema": None}, "average"),
    ):
        with pytest.raises(TrainingError, match=rf"another run \({name} was"):
            train(Scale(), source, config(tmp_path, **settings))
    with pytest.raises(TrainingError, match=r"another run \(data was"):
        train(Scale(), Items(values=torch.arange(8.0) + 1), config(tmp_path))
    with pytest.raises(TrainingError, match=r"another run \(items was 8 and is 9"):
        train(Scale(), Items(values=torch.arange(9.0)), config(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_damaged_checkpoints_are_refused(tmp_path, name):
    source = Items(values=torch.arange(8.0))
    train(Scale(), source, config(tmp_path))
    path = tmp_path / "step-00000004" / name
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(TrainingError, match=r"is damaged .* remove that folder"):
        train(Scale(), source, config(tmp_path))
    path.unlink()
    with pytest.raises(TrainingError, match="is damaged"):
        train(Scale(), source, config(tmp_path))


def test_a_checkpoint_of_a_later_format_is_refused(tmp_path):
    source = Items(values=torch.arange(8.0))
    train(Scale(), source, config(tmp_path))
    path = tmp_path / "step-00000004" / "state.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(TrainingError, match="has format 99"):
        train(Scale(), source, config(tmp_path))


def test_shared_weights_and_views_survive(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(5, 4)
            self.out = nn.Linear(4, 5, bias=False)
            self.out.weight = self.embed.weight
            self.register_buffer("view", torch.arange(10.0).view(2, 5)[:, 1:3])
            self.register_buffer("scratch", torch.ones(2), persistent=False)

        def loss(self, batch, generator, progress):
            return nn.functional.cross_entropy(self.out(self.embed(batch["values"])), batch["values"])

    source, module, again = Items(values=torch.arange(5)), Tied(), Tied()
    train(module, source, config(tmp_path))
    saved = load_file(tmp_path / "step-00000004" / "model.safetensors")
    assert sorted(saved) == ["embed.weight", "view"]
    train(again, source, config(tmp_path))
    assert torch.equal(module.out.weight, again.embed.weight)


def test_importing_is_light():
    code = "import sys, ancestral.training; assert not {'accelerate', 'rich', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_several_processes_say_nothing(tmp_path):
    """Neither a network whose layers all work nor what it takes to leave the group is warned about."""
    code = (
        "import torch; from training_toys import Quadratic; from ancestral.training import Items, TrainConfig, train; "
        "items = Items(values=torch.randn(40, 3)); "
        "train(Quadratic(), items, TrainConfig(steps=4, batch_size=8, quiet=True))"
    )
    path = f"{SCRIPT.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    pair = [
        subprocess.Popen([sys.executable, "-c", code], env=variables | world, stderr=subprocess.PIPE, text=True)
        for world in two_processes()
    ]
    for process in pair:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0 and "arning" not in said, said
