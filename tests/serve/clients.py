"""Clients on WebSockets, and what their streams must give."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import websockets

from adaptive_lstm import deploy

from .servers import Server

Frames = npt.NDArray[np.float32]
WAIT = 60.0  # seconds, on a busy machine


def frames(seed: int, count: int, width: int) -> Frames:
    """Features [count, width] that drift."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, width)).cumsum(0) / 4).astype(np.float32)


def alone(lstm: deploy.LSTM, x: Frames) -> Frames:
    """What a stream of its own gives."""
    with lstm.stream() as stream:
        return stream.run(x[:, None])[:, 0]


class Client:
    """One stream; ``hello``: what the server said first."""

    def __init__(self, connection: Any, hello: dict[str, Any]):
        self.socket, self.hello = connection, hello

    async def send(self, x: Frames) -> None:
        await asyncio.wait_for(self.socket.send(x.tobytes()), WAIT)

    async def take(self) -> Frames:
        """The next outputs [n, P]."""
        data = await asyncio.wait_for(self.socket.recv(), WAIT)
        assert isinstance(data, bytes), data
        return np.frombuffer(data, "<f4").reshape(-1, self.hello["output_size"])

    async def refused(self) -> str:
        """The next answer, which is an error."""
        message: str = json.loads(await asyncio.wait_for(self.socket.recv(), WAIT))["error"]
        return message

    async def ask(self, x: Frames) -> Frames:
        await self.send(x)
        return await self.take()

    async def closed(self) -> tuple[int, str]:
        """Status and reason of the end that the server makes."""
        await asyncio.wait_for(self.socket.wait_closed(), WAIT)
        return self.socket.close_code, self.socket.close_reason


def deaf(server: Server) -> dict[str, Any]:
    """Options of a client that has hardly room for results that it does not read."""
    host, _, port = server.address.partition(":")
    small = socket.socket()
    for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        small.setsockopt(socket.SOL_SOCKET, buffer, 4096)
    small.connect((host, int(port)))
    return {"sock": small, "max_queue": 1, "write_limit": 1024, "ping_interval": None}


@asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Client]:
    """A stream at a server."""
    async with websockets.connect(url, compression=None, open_timeout=WAIT, close_timeout=5, **options) as connection:
        yield Client(connection, json.loads(await asyncio.wait_for(connection.recv(), WAIT)))
