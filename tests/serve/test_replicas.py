"""Streams outlive their replica: drained, killed, or moved by hand, another one goes on where it stopped."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

import websockets

from adaptive_lstm import deploy

from ..support.helpers import native_only
from .clients import Client, Frames, alone, client, frames
from .servers import PATIENCE, Server

pytestmark = native_only


def replica(file: Path, folder: Path, *more: str) -> Server:
    return Server(str(file), "--name", "ears", "--snapshots", str(folder), *more)


async def rest(one: Client) -> list[Frames]:
    """All results that come before the end."""
    found = []
    try:
        while True:
            found.append(await one.take())
    except websockets.ConnectionClosed:
        return found


def test_a_drained_replica_hands_its_streams_over(file: Path, lstm: deploy.LSTM, tmp_path: Path) -> None:
    width, streams = lstm.shape.input_size, 12
    x = [frames(me, 60, width) for me in range(streams)]
    over_http = frames(99, 8, width)

    def http(server: Server, part: Frames, **flags: bool) -> Frames:
        tensor = {"name": "x", "shape": part.shape, "datatype": "FP32", "data": part.ravel().tolist()}
        said = {"inputs": [tensor], "parameters": {"sequence_id": 5, **flags}}
        reply = server.ask("POST", f"{server.path}/infer", json.dumps(said).encode())
        assert reply.status == 200, reply
        return np.array(reply.json["outputs"][0]["data"], np.float32).reshape(reply.json["outputs"][0]["shape"])

    with replica(file, tmp_path) as first, replica(file, tmp_path) as second:

        async def talk(me: int, started: asyncio.Semaphore) -> None:
            """Sends two frames at a time, a few messages ahead, to whatever replica there is; results are counted."""
            parts, found = np.split(x[me], 30), list[Frames]()
            url = f"{first.stream}?sequence_id=mic-{me}"
            async with client(url) as one:
                await one.send(parts[0])
                found.append(await one.take())
                started.release()
                sent = 1
                try:
                    while sent < len(parts):
                        await one.send(parts[sent])
                        sent += 1
                        if sent > 3:
                            found.append(await one.take())
                        await asyncio.sleep(0.05)
                except websockets.ConnectionClosed:
                    pass
                found += await rest(one)
                assert (one.socket.close_code, one.socket.close_reason) == (1012, "moved")
            async with client(f"{second.stream}?sequence_id=mic-{me}&resume=true") as one:
                assert one.hello["frames"] == 2 * len(found)  # what was not answered has to be sent again
                for part in parts[len(found) :]:
                    found.append(await one.ask(part))
            np.testing.assert_array_equal(np.concatenate(found), alone(lstm, x[me]))

        async def main() -> None:
            started = asyncio.Semaphore(0)
            talks = [asyncio.ensure_future(talk(me, started)) for me in range(streams)]
            for _ in range(streams):
                await started.acquire()
            first.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*talks)

        y = [http(first, over_http[:4], sequence_start=True)]
        asyncio.run(main())
        assert first.process.wait(PATIENCE) == 0
        y.append(http(second, over_http[4:], sequence_resume=True, sequence_end=True))
        np.testing.assert_array_equal(np.concatenate(y), alone(lstm, over_http))
        assert not list(tmp_path.iterdir()), "snapshots of sequences that have ended"


def test_a_killed_replica_loses_what_came_after_its_last_snapshot(
    file: Path, lstm: deploy.LSTM, tmp_path: Path
) -> None:
    x = frames(0, 40, lstm.shape.input_size)
    with replica(file, tmp_path, "--checkpoint", "0.2") as first, replica(file, tmp_path) as second:

        async def main() -> None:
            async with client(f"{first.stream}?sequence_id=mic") as one:
                found = [await one.ask(part) for part in np.split(x[:20], 10)]
                while not list(tmp_path.iterdir()):
                    await asyncio.sleep(0.05)
                first.process.kill()
                with pytest.raises(websockets.ConnectionClosed):
                    await one.take()
            async with client(f"{second.stream}?sequence_id=mic&resume=true") as one:
                seen = one.hello["frames"]
                assert 2 <= seen <= 20
                again = await one.ask(x[seen:])
            want = alone(lstm, x)
            np.testing.assert_array_equal(np.concatenate(found), want[:20])
            np.testing.assert_array_equal(again, want[seen:])

        asyncio.run(main())


def test_without_a_store_streams_end_with_their_results(file: Path, lstm: deploy.LSTM) -> None:
    x = frames(0, 40, lstm.shape.input_size)
    with Server(str(file)) as server:

        async def main() -> None:
            async with client(server.stream) as one:
                await one.send(x[:20])
                np.testing.assert_array_equal(await one.take(), alone(lstm, x)[:20])
                server.process.send_signal(signal.SIGTERM)
                assert await one.closed() == (1012, "stopped")

        asyncio.run(main())
        assert server.process.wait(PATIENCE) == 0


def test_snapshots_of_another_model_and_damaged_ones_are_refused(file: Path, tmp_path: Path) -> None:
    with replica(file, tmp_path) as one:
        said = {"inputs": [{"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [0] * 5}]}
        said |= {"parameters": {"sequence_id": "mic", "sequence_start": True}}  # type: ignore[dict-item]
        assert one.ask("POST", f"{one.path}/infer", json.dumps(said).encode()).status == 200
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(PATIENCE) == 0
    (kept,) = tmp_path.iterdir()
    good = kept.read_bytes()
    said["parameters"] = {"sequence_id": "mic", "sequence_resume": True}  # type: ignore[assignment]
    with replica(file, tmp_path) as two, Server("--snapshots", str(tmp_path)) as demo:
        for server, data, told in ((two, good[:-1], "damaged"), (two, b"", "damaged"), (demo, good, "another model")):
            kept.write_bytes(data)
            body = json.dumps(said).replace("[1, 5]", "[1, 16]") if server is demo else json.dumps(said)
            body = body.replace("[0, 0, 0, 0, 0]", str([0] * 16)) if server is demo else body
            reply = server.ask("POST", f"{server.path}/infer", body.encode())
            assert (reply.status, told in reply.json["error"]) == (400, True), reply
        kept.write_bytes(good)
        reply = two.ask("POST", f"{two.path}/infer", json.dumps(said).encode())
        assert reply.json["parameters"] == {"frames": 2, "sequence_id": "mic"}
