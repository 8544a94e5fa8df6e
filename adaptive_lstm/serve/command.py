"""The command line: options in, a server until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..deploy import LSTM, load
from ..errors import AdaptiveLSTMError, InputError
from ..runtime.monitor import DriftWarning
from . import demo
from .options import ServeOptions
from .packages import needed
from .store import FolderStore

if TYPE_CHECKING:
    from starlette.applications import Starlette

DESCRIPTION = """\
Serve streams through an LSTM that adaptive_lstm.save(..., weights=True) wrote; without FILE, through that of the demo.

  ws://HOST:PORT/v2/models/NAME/stream       binary messages of float32 frames; outputs come back in order
  http://HOST:PORT/v2/models/NAME/infer      KServe v2, with Triton's sequence_id, sequence_start and sequence_end
  http://HOST:PORT/metrics                   for Prometheus

SIGTERM drains: results that are due are sent, and with --snapshots another replica continues the streams."""

BUFFER = 2**16  # bytes that wait in the kernel in each direction

KINDS: dict[str, type] = {"interval": float, "idle_timeout": float, "checkpoint": float, "client_header": str}
HELP = {
    "streams": "that may be open at once",
    "streams_per_client": "of them, for one client",
    "backlog": "frames of a stream that may wait, and that a message may hold",
    "max_batch": "streams that a tick advances at most",
    "interval": "seconds for which frames are gathered before a tick",
    "max_bytes": "of a request's body or a message",
    "idle_timeout": "seconds after which a silent stream is closed",
    "checkpoint": "seconds between two snapshots of a stream in --snapshots",
    "client_header": "header that tells clients apart, set by a proxy in front; default: their address",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m adaptive_lstm.serve",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="the saved model; default: the demo")
    parser.add_argument("--lstm", metavar="MODULE", help="module name of the LSTM, if the file holds several")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--name", help="of the model in the paths (default: lstm, of the demo: digits)")
    parser.add_argument("--snapshots", metavar="FOLDER", help="where streams wait for another replica")
    for field in fields(ServeOptions):
        if field.name != "name":
            told = "" if field.default is None else f" (default: {field.default})"
            option, kind = f"--{field.name.replace('_', '-')}", KINDS.get(field.name, int)
            parser.add_argument(option, type=kind, default=field.default, help=HELP[field.name] + told)
    given = vars(parser.parse_args(arguments))
    host, port, file, lstm, snapshots = (given.pop(name) for name in ("host", "port", "file", "lstm", "snapshots"))
    given["name"] = given["name"] or ("lstm" if file else demo.NAME)
    try:
        options = ServeOptions(**given)
        app = _application(_model(file, lstm), options, snapshots)
        with _listening(host, port) as listener:
            at, port = listener.getsockname()[:2]
            address = f"[{at}]:{port}" if ":" in at else f"{at}:{port}"
            print(f"serving {options.name} at http://{address}/v2/models/{options.name}", flush=True)
            asyncio.run(_serve(app, options, listener))
    except (AdaptiveLSTMError, OSError, OverflowError) as error:  # the last: of a port
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _model(file: str | None, name: str | None) -> LSTM:
    if file is None:
        return demo.demo()
    model = load(file)
    if name is None:
        return model.lstm
    if name not in model:
        raise InputError(f"--lstm: got {name!r:.100}, but the file holds {model}")
    return model[name]


def _application(lstm: LSTM, options: ServeOptions, snapshots: str | None) -> Starlette:
    needed("uvicorn")
    store = None if snapshots is None else FolderStore(snapshots)
    app: Starlette = needed("adaptive_lstm.serve.asgi").application(lstm, options, store=store)
    return app


def _listening(host: str, port: int) -> socket.socket:
    """A socket whose connections inherit small buffers, and end if their data is not taken for a minute."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # otherwise they grow to megabytes for each slow client
        listener.setsockopt(socket.SOL_SOCKET, buffer, BUFFER)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
    return listener


async def _serve(app: Starlette, options: ServeOptions, listener: socket.socket) -> None:
    """Serve until a signal, then drain while connections are still there; a second signal ends it at once."""
    import uvicorn

    warnings.simplefilter("default", DriftWarning)  # a warning that were an error would end the pool
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws_max_size=options.max_bytes,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # whoever is read slowly would be taken for dead; idle_timeout finds those who are
        limit_concurrency=2 * options.streams + 64,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = uvicorn.Server(config)
    loop, at_once = asyncio.get_running_loop(), server.handle_exit
    draining: list[asyncio.Task[None]] = []

    async def drain() -> None:
        try:
            await app.state.service.drain()
        finally:
            server.should_exit = True

    def on_signal(number: int, frame: Any) -> None:
        if draining:
            at_once(number, frame)
        else:
            loop.call_soon_threadsafe(lambda: draining.append(loop.create_task(drain())))

    vars(server)["handle_exit"] = on_signal  # uvicorn itself would close all connections first
    await server.serve(sockets=[listener])
