from __future__ import annotations

import json
import math
import os
import signal
import threading
import time

import pytest
import torch
from torch import nn
from training_toys import Denoiser, Quadratic, Scale, data

from ancestral.errors import TrainingError
from ancestral.fitting import merge_options
from ancestral.training import Items, TrainConfig, train
from ancestral.training.optimiser import Average, decayed

ONES = Items(values=torch.ones(8))


def quiet(**settings) -> TrainConfig:
    return TrainConfig(**{"quiet": True, "log_every": 1, "batch_size": 8, **settings})


# ------------------------------------------------------------------ settings, schedule, groups, average


def test_rate_warms_up_and_anneals():
    config = TrainConfig(steps=10, lr=2.0, warmup=0.2, lr_floor=0.1)
    assert config.rate(0.0) == 0.0
    assert config.rate(0.1) == pytest.approx(1.0)
    assert config.rate(0.2) == pytest.approx(2.0)
    assert config.rate(0.6) == pytest.approx(0.2 + 1.8 * 0.5)
    assert config.rate(1.0) == pytest.approx(0.2)
    assert TrainConfig(steps=1, lr=2.0, warmup=0.0, schedule="constant").rate(0.7) == 2.0


@pytest.mark.parametrize(
    "settings",
    [{}, {"steps": 0}, {"steps": 1, "lr": -1}, {"steps": 1, "ema": 1.0}, {"steps": 1, "schedule": "linear"},
     {"steps": 1, "batch_size": 0}, {"steps": 1, "betas": (0.9, 1.5)}, {"steps": 1, "weight_decay": -0.1},
     {"minutes": math.nan}],
)  # fmt: skip
def test_senseless_settings_are_refused(settings):
    with pytest.raises(TrainingError):
        TrainConfig(**settings)


def test_budget_is_whichever_ends_first():
    assert TrainConfig(epochs=2.5, batch_size=4).total_steps(10) == 7
    assert TrainConfig(epochs=2.5, steps=3, batch_size=4).total_steps(10) == 3
    assert TrainConfig(epochs=2, batch_size=64).total_steps(10) == 2
    assert TrainConfig(minutes=1).total_steps(10) is None


def test_few_items_get_a_least_number_of_steps():
    assert TrainConfig(epochs=2, min_steps=50, batch_size=4).total_steps(10) == 50
    assert TrainConfig(epochs=40, min_steps=50, batch_size=4).total_steps(10) == 100
    assert TrainConfig(epochs=2, min_steps=50, steps=30, batch_size=4).total_steps(10) == 30
    with pytest.raises(TrainingError, match="min_steps=0 must be more than zero"):
        TrainConfig(epochs=2, min_steps=0)


def test_a_budget_that_is_asked_for_replaces_the_recipes():
    own = {"lr": 0.1, "epochs": 8, "min_steps": 400, "minutes": 10.0}
    assert merge_options(own, {"lr": 0.2}) == {**own, "lr": 0.2}
    assert merge_options(own, {"minutes": 3}) == {"lr": 0.1, "minutes": 3}
    assert merge_options(own, {"steps": None}) == {**own, "steps": None}


def test_only_matrices_decay():
    class Net(nn.Module):
        undecayed = ("table",)

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(4, 3))
            self.start = nn.Parameter(torch.zeros(3))
            self.linear = nn.Linear(3, 3)
            self.norm = nn.LayerNorm([3, 3])
            self.embed = nn.Embedding(5, 3)
            self.tied = nn.Linear(3, 5, bias=False)
            self.tied.weight = self.embed.weight
            self.frozen = nn.Linear(3, 3).requires_grad_(False)

    yes, no = decayed(Net())
    assert set(yes) == {"linear.weight"}
    assert set(no) == {"table", "start", "linear.bias", "norm.weight", "norm.bias", "embed.weight"}


def test_decay_reaches_the_decayed_alone():
    class Net(Scale):
        def __init__(self):
            super().__init__(1.0)
            self.matrix = nn.Parameter(torch.ones(2, 2))

        def loss(self, batch, generator, progress):
            return 0.0 * (self.weight.sum() + self.matrix.sum())

    net = Net()
    train(net, ONES, quiet(steps=3, lr=0.1, weight_decay=0.5, schedule="constant", warmup=0.0, ema=None))
    assert net.weight.item() == 1.0
    assert torch.allclose(net.matrix, torch.full((2, 2), (1 - 0.1 * 0.5) ** 3))


def test_average_has_its_closed_form():
    weight = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))
    average = Average({"w": weight}, 0.8)
    expected = torch.zeros(2, 3, dtype=torch.float64)
    for step in range(60):
        with torch.no_grad():
            weight.fill_(math.sin(step))
        average.update()
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * math.sin(step)
    assert torch.allclose(average.state()["w"], expected, atol=1e-14)
    own = weight.detach().clone()
    with average.applied():
        assert torch.equal(weight, average.values[0])
    assert torch.equal(weight, own)


# ------------------------------------------------------------------ the update


def test_the_update_is_adamw_with_clipping_and_the_schedule():
    source = Items(values=torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 5)
    config = quiet(steps=12, lr=0.1, weight_decay=0.0, ema=None, clip=0.5, warmup=0.25, batch_size=40)
    module, reference = Quadratic(), Quadratic()
    history = train(module, source, config)
    optimiser = torch.optim.AdamW(reference.parameters(), betas=config.betas, weight_decay=0.0)
    for step in range(12):
        loss = reference.loss(source.tensors, torch.Generator(), 0.0)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        optimiser.param_groups[0]["lr"] = config.rate((step + 0.5) / 12)
        optimiser.step()
        optimiser.zero_grad()
        row = history.rows[step]
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5) and row["step"] == step + 1
        assert row["lr"] == pytest.approx(optimiser.param_groups[0]["lr"])
    assert torch.allclose(module.point, reference.point, atol=1e-6)
    assert not module.training


def test_accumulation_equals_the_big_batch():
    results = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        module = Denoiser(noisy=False)
        history = train(module, data(), quiet(steps=11, batch_size=16, accumulate=accumulate, lr=0.01))
        results.append((module.state_dict(), history.column("loss")))
    for name, tensor in results[0][0].items():
        assert torch.allclose(tensor, results[1][0][name], atol=1e-5), name
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-5)


def test_randomness_is_the_runs_own():
    draws, seeds = [], []

    class Net(Scale):
        def loss(self, batch, generator, progress):
            draws.append((torch.rand(1, generator=generator).item(), torch.rand(1).item()))
            seeds.extend(batch["item_seed"].tolist())
            return super().loss(batch, generator, progress)

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(Net(), ONES, quiet(steps=3))
    assert torch.equal(torch.rand(1), expected)  # the caller's generator is where it was
    assert len(set(draws)) == 3
    assert len(set(seeds)) == 24  # fresh in every epoch
    first, draws[:] = list(draws), []
    torch.rand(7)
    train(Net(), ONES, quiet(steps=3))
    assert draws == first
    draws.clear()
    train(Net(), ONES, quiet(steps=3, seed=1))
    assert not set(draws) & set(first)


def test_bfloat16_is_used_inside_the_loss_alone():
    kinds = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def loss(self, batch, generator, progress):
            found = self.linear(batch["values"])
            kinds.append(found.dtype)
            return found.square().mean()

    net = Net()
    train(net, Items(values=torch.randn(8, 4)), quiet(steps=2, precision="bfloat16"))
    assert set(kinds) == {torch.bfloat16} and net.linear.weight.dtype == torch.float32


# ------------------------------------------------------------------ budgets, evaluation, stopping


class Timed(Scale):
    def __init__(self):
        super().__init__()
        self.progress = []

    def loss(self, batch, generator, progress):
        if self.training:
            time.sleep(0.01)
            self.progress.append(progress)
        return super().loss(batch, generator, progress)


def test_a_budget_in_minutes_ends_and_anneals():
    module, began = Timed(), time.perf_counter()
    history = train(module, ONES, quiet(minutes=2.4 / 60, lr=1.0, steps=10**6))
    assert 2.3 < time.perf_counter() - began < 6
    assert history.stopped == "budget" and history.seconds > 2.3
    assert module.progress == sorted(module.progress) and module.progress[-1] > 0.9
    rates = history.column("lr")
    assert max(rates) > 0.98 and rates[-1] < 0.05 and rates[0] < 0.5


def test_early_stopping_restores_the_best_averaged_weights():
    values = iter([3.0, 2.0, 2.5, 2.25, 9.0, 9.0, 9.0])
    snapshots = {}

    class Net(Scale):
        def loss(self, batch, generator, progress):
            if self.training:
                return super().loss(batch, generator, progress)
            assert progress == 1.0
            snapshots[len(snapshots)] = self.weight.item()
            return self.weight.sum() * 0 + next(values)

    net = Net()
    own = []
    history = train(
        net, ONES, quiet(steps=100, eval_every=2, patience=2, lr=0.1, ema=0.9), ONES,
        [lambda row, training: own.append(training.module.weight.item())],
    )  # fmt: skip
    assert history.stopped == "patience" and history.steps == 8
    assert (history.best_loss, history.best_step) == (2.0, 4)
    assert history.column("val_loss") == [3.0, 2.0, 2.5, 2.25]
    assert net.weight.item() == snapshots[1] != own[3]  # the average at step 4, not the weight itself


def test_validation_loss_is_the_mean_over_items_and_repeatable():
    source = Items(values=torch.arange(21.0)[:, None].expand(21, 3))
    module = Quadratic()
    history = train(module, source, quiet(steps=2, lr=1e-9, eval_every=1), source)
    assert history.column("val_loss")[0] == pytest.approx(3 * float((torch.arange(21.0) ** 2).mean()), rel=1e-5)
    history = train(module, source, quiet(steps=1, lr=1e-9, eval_items=9), source)
    assert history.column("val_loss")[0] == pytest.approx(3 * float((torch.arange(9.0) ** 2).mean()), rel=1e-5)
    noisy = Denoiser(noisy=True)
    history = train(noisy, data(), quiet(steps=3, lr=1e-12, weight_decay=0.0, eval_every=1), data(11))
    assert len(set(round(value, 6) for value in history.column("val_loss"))) == 1


def test_twenty_evaluations_by_default():
    history = train(Scale(), ONES, quiet(steps=60, log_every=1000), ONES)
    assert [row["step"] for row in history.rows] == list(range(3, 61, 3))


def test_without_validation_the_average_is_kept():
    module, last = Scale(), []
    history = train(module, ONES, quiet(steps=1, lr=0.5, warmup=0, schedule="constant", ema=0.999),
                    callbacks=[lambda row, training: last.append(training.module.weight.item())])  # fmt: skip
    assert last[0] == pytest.approx(-0.5, abs=1e-4)
    assert module.weight.item() == pytest.approx(-0.45, abs=1e-4)  # the first decay is 1 / 10
    assert history.best_loss is None


def test_a_callback_may_draw_from_the_average_and_end_the_run():
    seen = []

    def callback(row, training):
        before = training.module.weight.item()
        with training.averaged() as module:
            seen.append((before, module.weight.item(), module.training))
        assert training.module.weight.item() == before and training.module.training
        return row["step"] == 3

    history = train(Scale(), ONES, quiet(steps=9, lr=0.1), callbacks=[callback])
    assert history.stopped == "callback" and history.steps == 3
    assert all(own != average and not mode for own, average, mode in seen[1:])


# ------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_in_one_sentence(where, tmp_path):
    class Net(Scale):
        def loss(self, batch, generator, progress):
            loss = super().loss(batch, generator, progress)
            if progress < 0.5:
                return loss
            return loss * math.nan if where == "loss" else loss + (self.weight - self.weight.detach()).sum().sqrt()

    net = Net(0.0)
    with pytest.raises(TrainingError, match=rf"the {where} .*not finite at step 4; lower lr"):
        train(net, ONES, quiet(steps=6, checkpoint=tmp_path, save_every=1, log_every=100))
    assert math.isfinite(net.weight.item())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_validation_loss_that_is_not_finite_is_said():
    class Net(Scale):
        def loss(self, batch, generator, progress):
            return super().loss(batch, generator, progress) + (0.0 if self.training else math.inf)

    with pytest.raises(TrainingError, match="validation loss is inf at step 1"):
        train(Net(), ONES, quiet(steps=2, eval_every=1), ONES)


def test_nothing_to_train():
    with pytest.raises(TrainingError, match="no trainable parameters"):
        train(nn.Identity(), ONES, quiet(steps=1))

    class Net(Scale):
        def loss(self, batch, generator, progress):
            return batch["values"].mean()

    with pytest.raises(TrainingError, match="depends on the trainable parameters"):
        train(Net(), ONES, quiet(steps=1))


# ------------------------------------------------------------------ Ctrl-C, the log, the bar


def test_ctrl_c_finishes_the_step_saves_and_can_go_on(tmp_path):
    config = quiet(steps=10, lr=0.1, checkpoint=tmp_path, log_every=3, log=tmp_path / "log.jsonl")
    straight = Scale()
    whole = train(straight, ONES, quiet(steps=10, lr=0.1, log_every=3))
    calls = []

    class Net(Scale):
        def loss(self, batch, generator, progress):
            calls.append(progress)
            if len(calls) == 5:
                os.kill(os.getpid(), signal.SIGINT)
            return super().loss(batch, generator, progress)

    before = signal.getsignal(signal.SIGINT)
    net = Net()
    history = train(net, ONES, config)
    assert history.interrupted and history.steps == 5
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["log.jsonl", "step-00000005"]
    history = train(net, ONES, config)
    assert history.stopped == "budget" and history.resumed_from == 5
    assert torch.equal(net.weight, straight.weight)
    assert history.column("loss") == whole.column("loss")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == history.rows and [line["step"] for line in lines] == [3, 6, 9, 10]


def test_ctrl_c_raised_inside_a_callback_is_no_accident(tmp_path):
    def callback(row, training):
        raise KeyboardInterrupt

    history = train(Scale(), ONES, quiet(steps=10, checkpoint=tmp_path), callbacks=[callback])
    assert history.interrupted and history.steps == 1 and (tmp_path / "step-00000001").is_dir()


def test_a_second_ctrl_c_stops_at_once():
    class Net(Scale):
        def loss(self, batch, generator, progress):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.01)
            return super().loss(batch, generator, progress)

    with pytest.raises(KeyboardInterrupt):
        train(Net(), ONES, quiet(steps=10))


def test_trains_outside_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(train(Scale(), ONES, quiet(steps=2)).steps))
    thread.start()
    thread.join(60)
    assert found == [2]


def test_rows_say_what_they_say(tmp_path):
    history = train(Scale(), Items(values=torch.arange(12.0)), quiet(steps=7, log_every=3, log=tmp_path / "a" / "m"))
    assert [row["step"] for row in history.rows] == [3, 6, 7]
    assert [row["epoch"] for row in history.rows] == [2.0, 4.0, pytest.approx(14 / 3)]
    assert set(history.rows[0]) == {
        "step", "epoch", "loss", "lr", "grad_norm", "val_loss", "items_per_s", "seconds",
    }  # fmt: skip
    assert all(row["items_per_s"] > 0 for row in history.rows)
    assert [json.loads(line) for line in (tmp_path / "a" / "m").read_text().splitlines()] == history.rows


def test_the_bar_shows_on_a_terminal_alone(monkeypatch, capfd):
    train(Scale(), ONES, TrainConfig(steps=3))
    assert capfd.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    train(Scale(), ONES, TrainConfig(steps=3, log_every=1))
    shown = capfd.readouterr().err
    assert "left" in shown and "items/s" in shown and "loss" in shown
    train(Scale(), ONES, TrainConfig(steps=3, quiet=True))
    assert capfd.readouterr().err == ""
