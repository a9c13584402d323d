"""The command that puts a model behind HTTP: serve."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional

from ancestral.commands.arguments import MaybeInt, MaybeText, RecipeFile, Saved
from ancestral.errors import DataError, UnsupportedError


def serve(
    model: Positional[Saved],
    host: str = "127.0.0.1",
    port: int = 8000,
    name: MaybeText = None,
    slots: int = 64,
    queue: int = 256,
    max_symbols: int = 4096,
    max_items: int = 1024,
    max_body: int = 16 << 20,
    grace: int = 30,
    threads: MaybeInt = None,
    precision: Literal["highest", "high"] = "highest",
    recipe: RecipeFile = None,
) -> None:
    """Answer over HTTP: sample, score, complete, compress, and OpenAI's completions for models of text.

    Args:
        model: a saved model.
        host: the address to listen on; 0.0.0.0 for all of this machine's. There is no encryption and no password:
            put a proxy in front of what others can reach.
        port: to listen on; 0 takes a free one.
        name: what clients call the model; by default its file's name.
        slots: texts drawn together.
        queue: texts that may wait; further ones are refused with status 429.
        max_symbols: symbols that a request may ask for, per text.
        max_items: items that a request may hold or ask for.
        max_body: bytes of a request; larger ones are refused with status 413.
        grace: seconds that requests have to end once the server is told to stop.
        threads: of the processor; by default as many as there are cores.
        precision: of products of float32; with "high" they may be made of bfloat16 parts, which serves many texts at
            once faster on processors with AMX (PyTorch's float32_matmul_precision).
        recipe: the file of the model's recipe, where it is not one of the package's and has moved.
    """
    import socket

    from ancestral.commands import console

    try:
        import uvicorn

        from ancestral.serving.app import create_app
        from ancestral.serving.limits import Limits
    except ImportError as error:
        raise UnsupportedError(
            f"serving needs a package that is not installed ({error.name}); pip install 'ancestral[serve]'"
        ) from error
    bounds = {"slots": slots, "max-symbols": max_symbols, "max-items": max_items, "max-body": max_body}
    for flag, value in bounds.items():
        if value < 1:
            raise DataError(f"--{flag} {value} must be at least 1")
    if queue < 0 or grace < 0:
        raise DataError(f"--queue {queue} and --grace {grace} must be at least 0")
    import torch

    if threads is not None:
        if threads < 1:
            raise DataError(f"--threads {threads} must be at least 1")
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    loaded = console.load(model, recipe)
    limits = Limits(slots=slots, queue=queue, symbols=max_symbols, items=max_items, body=max_body)
    app = create_app(loaded, name or model.stem, limits)
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise DataError(f"cannot listen on {host} port {port}: {error}; choose another --port or --host") from error
    shown = f"[{host}]" if ":" in host else host
    console.stdout().print(
        f"{name or model.stem} at http://{shown}:{listening.getsockname()[1]}  (Ctrl-C stops)", markup=False
    )
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=grace, server_header=False, timeout_keep_alive=30, ws="none"
    )
    uvicorn.Server(config).run(sockets=[listening])
