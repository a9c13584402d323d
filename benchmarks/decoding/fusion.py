"""Requests that come at random: fused step by step, in batches that wait to fill, or one after the other.

The same arrivals (a Poisson process in real time, mixed prompts and lengths) go through three schedulers over the same
network, round by round: ``fused`` is :class:`ancestral.decoding.continuous.Engine`; ``waiting`` collects up to a batch
of requests, or what has come within a time, draws them to the end of the longest, and only then answers and takes the
next (dynamic batching); ``sequential`` draws one request at a time. Every text is compared with the one drawn alone.

    python benchmarks/decoding/fusion.py
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ancestral.decoding.continuous import Engine, Job  # noqa: E402
from ancestral.decoding.streams import continue_streams  # noqa: E402
from ancestral.model import Model  # noqa: E402
from ancestral.noise import item_seeds  # noqa: E402
from ancestral.recipes.registry import find  # noqa: E402
from record import record  # noqa: E402

BATCH, PATIENCE = 16, 0.05
"""Of the batches that wait: how many requests, and for how many seconds at most."""

Run = dict[int, tuple[float, list[int]]]
"""Per request when it was answered, and its symbols."""


def requests(count: int, longest: int, seed: int) -> list[Job]:
    draw = np.random.default_rng(seed)
    seeds = item_seeds(seed, torch.arange(count)).tolist()
    return [
        Job(
            torch.from_numpy(draw.integers(0, 256, draw.integers(8, longest // 2))),
            int(draw.integers(longest // 10, longest)),
            seeds[i],
        )
        for i in range(count)
    ]


def fused(model: Model, jobs: list[Job], arrivals: np.ndarray, capacity: int) -> Run:
    engine = Engine(model.generator, model.context, capacity)
    found: dict[int, list[int]] = {id(job): [] for job in jobs}
    done: Run = {}
    number = {id(job): i for i, job in enumerate(jobs)}
    began, coming = time.perf_counter(), 0
    while len(done) < len(jobs):
        now = time.perf_counter() - began
        while coming < len(jobs) and arrivals[coming] <= now:
            engine.submit(jobs[coming])
            coming += 1
        if not engine.busy:
            time.sleep(max(0.0, arrivals[coming] - now))
            continue
        for drawn in engine.step():
            found[id(drawn.job)].append(drawn.symbol)
            if drawn.finish:
                done[number[id(drawn.job)]] = time.perf_counter() - began, found[id(drawn.job)]
    return done


def waiting(model: Model, jobs: list[Job], arrivals: np.ndarray, capacity: int) -> Run:
    done: Run = {}
    began, coming = time.perf_counter(), 0
    queue: list[int] = []
    while len(done) < len(jobs):
        now = time.perf_counter() - began
        while coming < len(jobs) and arrivals[coming] <= now:
            queue.append(coming)
            coming += 1
        if not queue or (len(queue) < BATCH and coming < len(jobs) and now - arrivals[queue[0]] < PATIENCE):
            until = arrivals[coming] if not queue else min(arrivals[coming], arrivals[queue[0]] + PATIENCE)
            time.sleep(max(0.0, until - now))
            continue
        batch, queue = queue[:BATCH], queue[BATCH:]
        longest = max(jobs[i].length for i in batch)
        engine = Engine(model.generator, model.context, BATCH)
        texts = engine.run([Job(jobs[i].prefix, longest, jobs[i].seed) for i in batch])
        now = time.perf_counter() - began
        done |= {i: (now, text[: jobs[i].length]) for i, text in zip(batch, texts, strict=True)}
    return done


def sequential(model: Model, jobs: list[Job], arrivals: np.ndarray, capacity: int) -> Run:
    return fused(model, jobs, arrivals, 1)


SCHEDULERS: dict[str, Callable[..., Run]] = {"fused": fused, "waiting": waiting, "sequential": sequential}


def alone(model: Model, job: Job) -> list[int]:
    seeds = torch.tensor([job.seed])
    (stream,) = continue_streams(model.generator, [job.prefix], job.length, model.context, seeds, 1, {})
    return stream[len(job.prefix) :].tolist()


def measure(width: int, depth: int, count: int, longest: int, rounds: int, loads: tuple[float, ...]) -> dict[str, Any]:
    torch.manual_seed(0)
    model = find("flover")(width=width, depth=depth, length=256)
    model.build(["any text"])
    jobs = requests(count, longest, 0)
    few = jobs[:6]
    warm = sequential(model, few, np.zeros(len(few)), 1)
    rate = len(few) / max(at for at, _ in warm.values())  # requests per second, one after the other
    expected = [alone(model, job) for job in jobs]
    symbols = sum(job.length for job in jobs)
    out: dict[str, Any] = {"one_after_the_other_requests_per_second": rate}
    for load in loads:
        gaps = np.random.default_rng(1).exponential(1 / (load * rate), count)
        arrivals = np.cumsum(gaps) - gaps[0]
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in SCHEDULERS}
        for _ in range(rounds):
            for name, scheduler in SCHEDULERS.items():
                done = scheduler(model, jobs, arrivals, 64)
                late = np.array([done[i][0] - arrivals[i] for i in range(count)])
                same = sum(done[i][1] == expected[i] for i in range(count))
                taken[name].append(
                    {
                        "symbols_per_second": symbols / max(at for at, _ in done.values()),
                        "mean_latency_seconds": float(late.mean()),
                        "p95_latency_seconds": float(np.quantile(late, 0.95)),
                        "texts_equal_to_those_drawn_alone": same / count,
                    }
                )
        middle = {
            name: {key: float(np.median([r[key] for r in rows])) for key in rows[0]} for name, rows in taken.items()
        }
        mine = middle["fused"]
        for name in ("waiting", "sequential"):
            other = middle[name]
            middle[f"fused_over_{name}"] = {
                "throughput": mine["symbols_per_second"] / other["symbols_per_second"],
                "mean_latency": mine["mean_latency_seconds"] / other["mean_latency_seconds"],
                "p95_latency": mine["p95_latency_seconds"] / other["p95_latency_seconds"],
            }
        out[f"load_{load:g}"] = middle
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=96, help="requests")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 8.0])
    parser.add_argument("--small", action="store_true", help="the smaller network only")
    given = parser.parse_args()
    torch.set_num_threads(1)
    ours = {"4x128": measure(128, 4, given.count, 160, given.rounds, tuple(given.loads))}
    if not given.small:
        ours["8x384"] = measure(384, 8, given.count // 3, 100, 1, (max(given.loads),))
    print(json.dumps(ours, indent=1))
    busiest = f"load_{max(given.loads):g}"
    better, same = True, True
    for sized in ours.values():
        for load, found in sized.items():
            if not load.startswith("load_"):
                continue
            same &= all(found[name]["texts_equal_to_those_drawn_alone"] == 1 for name in SCHEDULERS)
            for name in ("waiting", "sequential"):
                ratio = found[f"fused_over_{name}"]
                better &= ratio["mean_latency"] < 1 and ratio["p95_latency"] < 1
                better &= ratio["throughput"] > 1 or load != busiest
    record(
        "flover",
        ours,
        scale=f"GPTs of 4 x 128 and 8 x 384 (random weights, bytes), 1 thread; {given.count} requests (a third for "
        "the larger), prompts of 8 to 80 and texts of 10 to 160 symbols (to 100 for the larger), arriving at random at "
        f"so many times the rate of one after the other: {', '.join(f'{x:g}' for x in given.loads)}; waits for "
        f"{BATCH} requests or {PATIENCE} s; medians of {given.rounds} interleaved rounds (the larger: one round, at "
        "the highest rate)",
        verdict="reproduced" if better and same else "not reproduced",
        published="over 11 times faster than FasterTransformer on GPT, 16 on LLaMA, on GPUs",
    )


if __name__ == "__main__":
    main()
