"""A server under 64 streaming clients for minutes: errors, memory, and throughput against one request at a time.

``ancestral serve`` runs in a process of its own, the clients in another, all on the loopback interface. First one
client asks for one text after the other, then 64 clients do at once, each streaming its text; every answer is checked
to be complete. The server's resident memory is read every few seconds.

    python benchmarks/decoding/server.py --minutes 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from ancestral.recipes.registry import find  # noqa: E402
from record import record  # noqa: E402

TEXT = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals. "


class Client:
    """Streams texts one after the other until the time is up."""

    def __init__(self, number: int):
        self.draw = random.Random(number)
        self.symbols = self.texts = 0
        self.errors: list[str] = []
        self.first: list[float] = []
        self.whole: list[float] = []

    async def run(self, http: httpx.AsyncClient, end: float) -> None:
        while time.monotonic() < end:
            length = self.draw.randint(32, 160)
            body = {
                "model": "model", "prompt": TEXT[: self.draw.randint(4, 80)], "max_tokens": length, "stream": True,
                "seed": self.draw.getrandbits(32), "stream_options": {"include_usage": True},
            }  # fmt: skip
            began = time.monotonic()
            try:
                usage, finished, last = None, None, ""
                async with http.stream("POST", "/v1/completions", json=body) as answer:
                    if answer.status_code != 200:
                        self.errors.append(f"status {answer.status_code}")
                        await asyncio.sleep(0.5)
                        continue
                    async for line in answer.aiter_lines():
                        if not line:
                            continue
                        if last == "":
                            self.first.append(time.monotonic() - began)
                        last = line
                        # Parsing every event would measure the client's JSON instead of the server.
                        if '"usage": {' in line or '"finish_reason": "' in line:
                            event = json.loads(line[6:])
                            usage = event.get("usage") or usage
                            finished = (event["choices"] or [{}])[0].get("finish_reason") or finished
                if last != "data: [DONE]" or finished != "length" or usage["completion_tokens"] != length:
                    self.errors.append(f"an incomplete answer ({last[:60]!r}, {finished}, {usage})")
                    continue
            except httpx.HTTPError as error:
                self.errors.append(repr(error))
                continue
            self.whole.append(time.monotonic() - began)
            self.symbols += length
            self.texts += 1


def memory(process: int) -> float:
    """Resident MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def drive(url: str, server: int, clients: int, seconds: float) -> dict[str, Any]:
    """What ``clients`` clients get from the server, and its memory meanwhile."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    sizes: list[tuple[float, float]] = []
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as http:
        began = time.monotonic()
        end = began + seconds
        every = [Client(number) for number in range(clients)]
        work = [asyncio.create_task(client.run(http, end)) for client in every]
        while time.monotonic() < end:
            await asyncio.sleep(min(5.0, max(0.1, end - time.monotonic())))
            sizes.append((time.monotonic() - began, memory(server)))
        await asyncio.wait_for(asyncio.gather(*work), 120)
        taken = time.monotonic() - began
        metrics = (await http.get("/metrics")).text
    first = sorted(t for client in every for t in client.first)
    whole = sorted(t for client in every for t in client.whole)
    third = max(1, len(sizes) // 3)
    errors = [error for client in every for error in client.errors]
    return {
        "clients": clients,
        "seconds": taken,
        "texts": sum(client.texts for client in every),
        "errors": len(errors),
        "first_errors": errors[:3],
        "symbols_per_second": sum(client.symbols for client in every) / taken,
        "first_symbol_seconds": {"median": statistics.median(first), "p95": first[int(0.95 * (len(first) - 1))]},
        "whole_text_seconds": {"median": statistics.median(whole), "p95": whole[int(0.95 * (len(whole) - 1))]},
        "memory_mib": {
            "after_a_third": statistics.median(m for _, m in sizes[third : 2 * third] or sizes),
            "at_the_end": statistics.median(m for _, m in sizes[-third:]),
            "largest": max(m for _, m in sizes),
        },
        "refused": sum(
            float(row.split()[-1]) for row in metrics.splitlines() if row.startswith("ancestral_refused_total")
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--alone", type=float, default=0.75, help="minutes of one request at a time")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--no-record", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = find("gpt")(width=given.width, depth=given.depth)
        model.build([TEXT])
        model.save(Path(folder) / "model.ancestral")
        command = [sys.executable, "-m", "ancestral.cli", "serve", str(Path(folder) / "model.ancestral"), "--port", "0"]
        settings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
        process = subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.PIPE, text=True, env=settings)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            asyncio.run(drive(url, process.pid, 2, 3.0))  # warm
            alone = asyncio.run(drive(url, process.pid, 1, 60 * given.alone))
            many = asyncio.run(drive(url, process.pid, given.clients, 60 * given.minutes))
        finally:
            process.terminate()
            code = process.wait(60)
    ratio = many["symbols_per_second"] / alone["symbols_per_second"]
    growth = many["memory_mib"]["at_the_end"] - many["memory_mib"]["after_a_third"]
    ours = {
        "one_at_a_time": alone,
        "many_at_once": many,
        "throughput_ratio": ratio,
        "memory_growth_mib": growth,
        "exit_code": code,
    }
    print(json.dumps(ours, indent=1))
    if given.no_record:
        return
    good = (
        ratio >= 4 and not many["errors"] and not alone["errors"] and growth <= 0.02 * many["memory_mib"]["at_the_end"]
    )
    record(
        "serving",
        ours,
        scale=f"a GPT of {given.depth} x {given.width} (random weights, bytes) behind `ancestral serve` on 1 thread; "
        f"{given.clients} clients in another process, each streaming texts of 32 to 160 symbols one after the other "
        f"for {given.minutes:g} minutes; before that one client for {given.alone:g} minutes",
        verdict="reproduced" if good else "not reproduced",
        published="goal: 64 streaming clients for 5 minutes without an error or growing memory (2 %), at least 4 times "
        "the throughput of one request at a time",
        packages=("fastapi", "uvicorn", "httpx"),
    )


if __name__ == "__main__":
    main()
