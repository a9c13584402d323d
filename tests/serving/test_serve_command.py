"""``ancestral serve`` as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from served import text_model

COMMAND = [sys.executable, "-m", "ancestral.cli", "serve"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "novel.ancestral"
    text_model().save(path)
    return path


def test_it_says_where_it_listens_answers_and_stops_when_told(saved: Path) -> None:
    settings = {**os.environ, "COLUMNS": "200"}
    process = subprocess.Popen(
        [*COMMAND, str(saved), "--port", "0", "--threads", "1", "--precision", "high"],
        stdout=subprocess.PIPE,
        text=True,
        env=settings,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        name, _, url, *_ = line.split()
        assert name == "novel" and url.startswith("http://127.0.0.1:")
        answer = httpx.post(
            f"{url}/v1/completions", json={"model": "novel", "prompt": "It", "max_tokens": 4}, timeout=30
        )
        assert answer.status_code == 200 and "server" not in answer.headers
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    finally:
        process.kill()


def test_a_port_that_is_taken_is_said_in_one_sentence(saved: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*COMMAND, str(saved), "--port", port], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"ancestral: cannot listen on 127.0.0.1 port {port}: ")
    assert len(done.stderr.strip().split("\n")) == 1
