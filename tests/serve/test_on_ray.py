"""Two replicas on a local cluster of Ray, asked through its proxy; one that dies hands its streams over."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray.serve", reason="Ray Serve is not installed; make test-services installs it and runs this")
pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

import ray
import websockets
from ray import serve

from adaptive_lstm import deploy
from adaptive_lstm.errors import InputError
from adaptive_lstm.serve import ServeOptions
from adaptive_lstm.serve.on_ray import ActorStore, Shelf, deployment
from adaptive_lstm.serve.sequences import Key

from ..support.helpers import native_only
from .clients import WAIT, alone, client, frames
from .servers import ROOT

pytestmark = [
    native_only,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),  # Ray warns of itself
]
REPLICA = "SERVE_REPLICA::ears#ears#"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def address(file: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        paths = [str(ROOT), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else a token is written into the home directory
        ray.init(num_cpus=4, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options = ServeOptions(name="ears", streams=64, backlog=64, checkpoint=0.2)
        serve.run(deployment(str(file), options, num_replicas=2), name="ears", route_prefix="/")
        yield f"127.0.0.1:{port}/v2/models/ears"
        ray.shutdown()


def replicas() -> list[str]:
    """Names of the actors that serve."""
    return [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["name"].startswith(REPLICA)]


def kill_replicas() -> None:
    for name in replicas():
        ray.kill(ray.get_actor(name, namespace="serve"))


async def resumed(url: str, seen: int) -> Any:
    """A client of a replica that knows how many frames came before; replicas that have just died are given time."""
    for _ in range(int(WAIT / 0.5)):
        try:
            async with client(url) as one:
                if one.hello["frames"] >= seen:
                    return one.hello["frames"], await one.ask(frames(0, 30, 5)[one.hello["frames"] :])
        except (OSError, websockets.WebSocketException, AssertionError):
            pass
        await asyncio.sleep(0.5)
    raise TimeoutError("no replica has resumed the stream")


def test_streams_over_the_proxy_outlive_their_replicas(address: str, lstm: deploy.LSTM) -> None:
    store, url, x = ActorStore("ears snapshots"), f"ws://{address}/stream", frames(0, 30, 5)
    want = alone(lstm, x)

    async def one_of_many(me: int) -> None:
        mine = frames(me, 12, 5)
        async with client(url) as one:
            found = [await one.ask(part) for part in np.split(mine, 4)]
        np.testing.assert_array_equal(np.concatenate(found), alone(lstm, mine))

    async def main() -> None:
        await asyncio.gather(*(one_of_many(me) for me in range(20)))
        async with client(f"{url}?sequence_id=mic") as one:
            np.testing.assert_array_equal(await one.ask(x[:20]), want[:20])
            key = Key("127.0.0.1", "mic")
            while await store.get(key) is None:
                await asyncio.sleep(0.05)
            kill_replicas()
            await asyncio.wait_for(one.socket.wait_closed(), WAIT)
        seen, y = await resumed(f"{url}?sequence_id=mic&resume=true", 20)
        assert seen == 20
        np.testing.assert_array_equal(y, want[20:])

    asyncio.run(main())


def test_triton_asks_through_the_proxy(address: str, lstm: deploy.LSTM) -> None:
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    x = frames(3, 40, 5)
    given = triton.InferInput("x", x.shape, "FP32").set_data_from_numpy(x)
    with triton.InferenceServerClient(address.partition("/")[0]) as asking:
        assert asking.is_server_ready()
        np.testing.assert_array_equal(asking.infer("ears", [given]).as_numpy("y"), alone(lstm, x))


def test_a_replica_has_room_for_its_streams(file: Path) -> None:
    with pytest.raises(InputError, match="max_ongoing_requests: got 5, expected 512"):
        deployment(str(file), max_ongoing_requests=5)


def test_the_shelf_of_an_actor_is_bounded() -> None:
    shelf = Shelf(10, 1000.0)
    for k in range(4):
        shelf.put(("a", str(k)), bytes(4))
    assert [shelf.get(("a", str(k))) is None for k in range(4)] == [True, True, False, False]
    shelf.put(("a", "2"), bytes(6))
    shelf.drop(("a", "3"))
    shelf.put(("a", "4"), bytes(4))
    assert [len(shelf.get(("a", k)) or b"") for k in "234"] == [6, 0, 4]
    shelf.put(("a", "5"), bytes(11))  # larger than all: not kept, and the others went
    assert all(shelf.get(("a", k)) is None for k in "2345")
