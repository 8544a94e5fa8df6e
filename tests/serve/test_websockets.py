"""Streams over WebSockets: every client gets the outputs of a stream of its own, whatever the others do."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
pytest.importorskip("websockets", reason="the extra 'serve' is not installed")

import websockets

from adaptive_lstm import deploy

from ..support.helpers import native_only
from .clients import WAIT, alone, client, deaf, frames
from .servers import Server

pytestmark = native_only


async def until(met: Callable[[], bool]) -> None:
    """Wait until a condition is met."""
    for _ in range(int(WAIT / 0.1)):
        if await asyncio.to_thread(met):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("the condition was never met")


async def talk(server: Server, lstm: deploy.LSTM, seed: int, count: int = 12) -> None:
    """A client as it should be: some frames at a time, a few messages ahead."""
    x = frames(seed, count, lstm.shape.input_size)
    async with client(server.stream) as one:
        for part in np.split(x, 4):
            await one.send(part)
        found = [await one.take() for _ in range(4)]
    np.testing.assert_array_equal(np.concatenate(found), alone(lstm, x))


@pytest.mark.slow
def test_two_hundred_streams(server: Server, lstm: deploy.LSTM) -> None:
    """A packet of 10 frames every second from each of 200: all answered, in order, each by its own outputs."""
    clients, packets, length = 200, 5, 10
    before, here, together = server.metric("frames_total"), 0, asyncio.Event()

    async def microphone(me: int) -> int:
        nonlocal here
        loop, x = asyncio.get_running_loop(), frames(me, packets * length, lstm.shape.input_size)
        async with client(server.stream) as one:
            here += 1
            if here == clients:
                together.set()
            await together.wait()
            start, found = loop.time() + me / clients, list[np.ndarray]()

            async def send() -> None:
                for k, packet in enumerate(np.split(x, packets)):
                    await asyncio.sleep(max(0.0, start + k - loop.time()))
                    await one.send(packet)

            sending = asyncio.ensure_future(send())
            while len(found) < packets:
                found.append(await one.take())
            await sending
        np.testing.assert_array_equal(np.concatenate(found), alone(lstm, x))
        return len(found)

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(microphone(me) for me in range(clients)))

    assert asyncio.run(all_of_them()) == [packets] * clients
    assert server.metric("frames_total") - before == clients * packets * length
    assert 0 < server.metric('tick_seconds{quantile="0.5"}') <= server.metric('tick_seconds{quantile="0.99"}')
    assert 0 < server.metric("activity") < 1


def test_clients_that_vanish(server: Server, lstm: deploy.LSTM) -> None:
    x = frames(0, 80, lstm.shape.input_size)

    async def vanishing() -> None:
        async with client(server.stream) as one:
            await one.send(x[:50])
            one.socket.transport.abort()

    async def main() -> None:
        async with client(server.stream) as stays:
            found = []
            for k, part in enumerate(np.split(x, 8)):
                await asyncio.gather(*(vanishing() for _ in range(25)), return_exceptions=True)
                found.append(await stays.ask(part))
                if k == 1:
                    before = server.megabytes
            np.testing.assert_array_equal(np.concatenate(found), alone(lstm, x))
            await until(lambda: server.metric("streams") == 1)
            assert server.megabytes < before + 16
        await until(lambda: server.metric("streams") == 0)

    asyncio.run(main())


def test_garbage_is_answered_and_changes_nothing(server: Server, lstm: deploy.LSTM) -> None:
    width = lstm.shape.input_size
    x, bad = frames(1, 9, width), frames(2, 3, width)
    bad[1, 2] = np.nan

    async def main() -> None:
        async with client(server.stream) as one:
            found = [await one.ask(x[:3])]
            for garbage, told in (
                (b"", "0 bytes"),
                (b"\x00" * (4 * width + 1), f"{4 * width + 1} bytes, expected frames of {4 * width} bytes"),
                ("hello", "got text"),
                ('{"op": "reset"}', "got text"),
                (bad.tobytes(), "NaN or infinity"),
                (b"\xff" * 4 * width, "NaN or infinity"),
                (bytes(4 * width * 65), "65 frames at once, expected at most 64"),
            ):
                await one.socket.send(garbage)
                assert told in await one.refused()
                await talk(server, lstm, 3)
            for k in range(3, 9, 3):  # mixed with good ones, in order
                await one.socket.send("x")
                await one.send(x[k : k + 3])
                assert "got text" in await one.refused()
                found.append(await one.take())
            np.testing.assert_array_equal(np.concatenate(found), alone(lstm, x))

    asyncio.run(main())


def test_oversized_messages_end_their_stream_alone(strict: Server, lstm: deploy.LSTM) -> None:
    async def main() -> None:
        async with client(strict.stream) as good:
            async with client(strict.stream) as one:
                await one.socket.send(bytes(2001))
                assert (await one.closed())[0] == 1009
            async with client(strict.stream) as one:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await one.socket.send(iter([bytes(1000)] * 2000))  # in fragments
                assert (await one.closed())[0] in (1009, 1006)  # what is sent meanwhile may meet a closed port
            x = frames(5, 4, lstm.shape.input_size)
            np.testing.assert_array_equal(await good.ask(x), alone(lstm, x))

    asyncio.run(main())


def test_slow_readers_are_held_up_and_nobody_else(server: Server, lstm: deploy.LSTM) -> None:
    """Who takes no results can send no more, at some point, and the server keeps no more for it."""
    x = frames(6, 50, lstm.shape.input_size)
    part = x.tobytes()

    async def main() -> None:
        async with client(server.stream, **deaf(server)) as slow:
            sent, before = 0, server.megabytes
            with contextlib.suppress(asyncio.TimeoutError):
                while sent < 10_000:  # 10 MB, and 48 MB of results
                    await asyncio.wait_for(slow.socket.send(part), 3)
                    sent += 1
            assert sent < 10_000
            await talk(server, lstm, 7)
            assert server.megabytes < before + 16
            assert server.metric("streams") == 1
            stream = lstm.stream()
            for _ in range(sent):
                np.testing.assert_array_equal(await slow.take(), stream.run(x[:, None])[:, 0])

    asyncio.run(main())


def test_limits_of_a_client_and_of_all(strict: Server) -> None:
    async def denied(who: str) -> tuple[int, str]:
        with pytest.raises(websockets.InvalidStatus) as error:
            async with client(strict.stream, additional_headers={"x-client": who}):
                pass
        found = error.value.response
        return found.status_code, json.loads(found.body or b"")["error"]

    async def main() -> None:
        async with contextlib.AsyncExitStack() as open_ones:
            for _ in range(3):
                await open_ones.enter_async_context(client(strict.stream, additional_headers={"x-client": "a"}))
            status, told = await denied("a")
            assert (status, "you have 3 open" in told) == (429, True)
            await open_ones.enter_async_context(client(strict.stream, additional_headers={"x-client": "b"}))
            status, told = await denied("c")
            assert (status, "4 are open" in told) == (503, True)
        await until(lambda: strict.metric("streams") == 0)
        async with client(strict.stream, additional_headers={"x-client": "a"}):
            pass

    asyncio.run(main())
    assert "ERROR" not in strict.log


def test_idle_streams_and_those_that_take_nothing_are_closed(strict: Server, lstm: deploy.LSTM) -> None:
    part = frames(8, 8, lstm.shape.input_size).tobytes()

    async def silent() -> None:
        async with client(strict.stream) as one:
            assert await one.closed() == (1001, "idle")

    async def takes_nothing() -> None:
        async with client(strict.stream, **deaf(strict)) as one:
            with contextlib.suppress(websockets.ConnectionClosed, asyncio.TimeoutError):
                for _ in range(100_000):
                    await asyncio.wait_for(one.socket.send(part), 3)
            await until(lambda: strict.metric("streams") == 0)
            one.socket.transport.abort()

    asyncio.run(silent())
    asyncio.run(takes_nothing())


def test_names_of_sequences(server: Server, lstm: deploy.LSTM) -> None:
    x = frames(9, 8, lstm.shape.input_size)

    async def main() -> None:
        url = f"{server.stream}?sequence_id=mic-7"
        async with client(url) as one:
            assert one.hello == {"sequence_id": "mic-7", "frames": 0, "input_size": 5, "output_size": 24}
            await one.ask(x[:4])
            kept = await asyncio.to_thread(server.ask, "GET", f"{server.path}/sequences/mic-7")
            assert kept.headers["x-frames"] == "4"
            for flags in ({"sequence_start": True}, {"sequence_resume": True}, {}):
                tensor = {"name": "x", "shape": [1, 5], "datatype": "FP32", "data": [0] * 5}
                said = json.dumps({"inputs": [tensor], "parameters": {"sequence_id": "mic-7", **flags}}).encode()
                refused = await asyncio.to_thread(server.ask, "POST", f"{server.path}/infer", said)
                assert (refused.status, "held by a connection" in refused.json["error"]) == (409, True)
        await until(lambda: server.metric("streams") == 0)
        for bad in ("?sequence_id=mic-7&resume=true", "?resume=perhaps", "?other=1", f"?sequence_id={'x' * 200}"):
            with pytest.raises(websockets.InvalidStatus, match=r"40[04]"):
                async with client(server.stream + bad):
                    pass
        put = await asyncio.to_thread(server.ask, "PUT", f"{server.path}/sequences/mic-8", kept.body)
        assert put.json == {"sequence_id": "mic-8", "frames": 4}
        async with client(f"{server.stream}?sequence_id=mic-8&resume=true") as one:
            assert one.hello["frames"] == 4
            np.testing.assert_array_equal(await one.ask(x[4:]), alone(lstm, x)[4:])

    asyncio.run(main())


def test_a_client_that_comes_back_takes_its_stream_over(server: Server, lstm: deploy.LSTM) -> None:
    """Its old connection may be one that nobody has noticed to be dead."""
    x, url = frames(10, 12, lstm.shape.input_size), f"{server.stream}?sequence_id=mic-9"

    async def main() -> None:
        async with client(url) as first:
            np.testing.assert_array_equal(await first.ask(x[:4]), alone(lstm, x)[:4])
            async with client(f"{url}&resume=true") as second:
                assert await first.closed() == (1008, "taken over")
                assert second.hello["frames"] == 4
                np.testing.assert_array_equal(await second.ask(x[4:]), alone(lstm, x)[4:])
                async with client(url) as third:
                    assert await second.closed() == (1008, "started anew")
                    np.testing.assert_array_equal(await third.ask(x), alone(lstm, x))
                    assert server.metric("streams") == 1
        await until(lambda: server.metric("streams") == 0)

    asyncio.run(main())
