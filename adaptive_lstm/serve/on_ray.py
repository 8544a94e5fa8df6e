"""The same server as a deployment of Ray Serve: replicas, a proxy in front, and a store that all of them reach."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from ..errors import InputError
from .options import ServeOptions
from .packages import needed
from .sequences import Key

STORE_BYTES = 2**28  # of snapshots, by default; the oldest go first
SHUTDOWN = 5.0  # seconds that Ray waits for a replica whose streams end with it


class Shelf:
    """What an actor keeps: snapshots by key, the oldest first, up to so many bytes and seconds."""

    def __init__(self, most_bytes: int, keep: float):
        self._most, self._keep, self._bytes = most_bytes, keep, 0
        self._kept: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()

    def put(self, key: tuple[str, str], snapshot: bytes) -> None:
        """As ``Store.put``."""
        self.drop(key)
        self._kept[key] = time.monotonic(), snapshot
        self._bytes += len(snapshot)
        while self._kept and (self._bytes > self._most or self._oldest() > self._keep):
            self.drop(next(iter(self._kept)))

    def get(self, key: tuple[str, str]) -> bytes | None:
        """As ``Store.get``."""
        found = self._kept.get(key)
        return None if found is None or time.monotonic() - found[0] > self._keep else found[1]

    def drop(self, key: tuple[str, str]) -> None:
        """As ``Store.drop``."""
        self._bytes -= len(self._kept.pop(key, (0.0, b""))[1])

    def _oldest(self) -> float:
        """How many seconds it has been there."""
        return time.monotonic() - next(iter(self._kept.values()))[0]


class ActorStore:
    """A store in an actor of this name, which outlives replicas and drivers; made where it is first asked for.

    Args:
        name: of the actor.
        most_bytes: of snapshots that it keeps; the oldest go first.
        keep: seconds after which a snapshot that nobody asked for is forgotten.
    """

    def __init__(self, name: str, *, most_bytes: int = STORE_BYTES, keep: float = 3600.0):
        self._name, self._arguments, self._actor = name, (most_bytes, keep), None

    async def put(self, key: Key, snapshot: bytes) -> None:
        """As ``Store.put``."""
        await self._shelf().put.remote(tuple(key), snapshot)

    async def get(self, key: Key) -> bytes | None:
        """As ``Store.get``."""
        found: bytes | None = await self._shelf().get.remote(tuple(key))
        return found

    async def drop(self, key: Key) -> None:
        """As ``Store.drop``."""
        await self._shelf().drop.remote(tuple(key))

    def _shelf(self) -> Any:
        if self._actor is None:
            ray = needed("ray")
            kind = ray.remote(num_cpus=0)(Shelf)
            options = {"name": self._name, "namespace": "adaptive_lstm", "get_if_exists": True, "lifetime": "detached"}
            self._actor = kind.options(**options).remote(*self._arguments)
        return self._actor


def deployment(file: str, options: ServeOptions | None = None, **settings: Any) -> Any:
    """An application of Ray Serve: ``serve.run(deployment("model.alstm", num_replicas=2))``.

    A stream belongs to one replica. A WebSocket stays with the replica that took it; one that is broken, because its
    replica was stopped or died, goes on at another with ``resume=true``, from its last snapshot. Sequences over HTTP
    need one replica, or a proxy that sends all requests of a client to the same one.

    Args:
        file: the saved model, at a path that all replicas see.
        options: how each replica serves.
        settings: of ``ray.serve.deployment``.

    Raises:
        UnsupportedError: Ray Serve is not installed.
        InputError: ``max_ongoing_requests`` below the streams of a replica.
    """
    serve = needed("ray.serve")
    chosen = ServeOptions() if options is None else options
    wanted = {
        "name": chosen.name,
        "max_ongoing_requests": 2 * chosen.streams,
        "graceful_shutdown_timeout_s": SHUTDOWN,
        "ray_actor_options": {"num_cpus": 1},
        **settings,
    }
    if wanted["max_ongoing_requests"] < chosen.streams:
        raise InputError(
            f"max_ongoing_requests: got {wanted['max_ongoing_requests']}, expected {chosen.streams} at least: each "
            "stream is a request that goes on"
        )

    def build() -> Any:
        from adaptive_lstm.serve import application

        return application(file, chosen, store=ActorStore(f"{chosen.name} snapshots"))

    return serve.deployment(**wanted)(serve.ingress(build)()).bind()
