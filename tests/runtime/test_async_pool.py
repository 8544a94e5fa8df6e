"""A pool for ``asyncio``: every push is answered with its own outputs, whatever the others do."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError, OverloadError

from ..support.helpers import adapted

I, H, L = 5, 9, 2  # noqa: E741 (the letter of the input size everywhere)


def lstm() -> al.AdaptiveLSTM:
    fast = adapted(I, H, L, policy=al.SkipTimesteps(x_share=0.2))
    fast.quantize = al.Quantize("int8")
    return fast


def run(
    work: Callable[[al.AsyncStreamPool], Awaitable[None]], model: al.AdaptiveLSTM | None = None, **options: Any
) -> None:
    async def main() -> None:
        async with al.AsyncStreamPool(model or lstm(), **{"capacity": 8, "interval": 0.001, **options}) as pool:
            await asyncio.wait_for(work(pool), 60)

    asyncio.run(main())


@pytest.mark.parametrize(("interval", "max_batch"), [(0.0, None), (0.001, 3), (0.0, 1)])
def test_every_push_gets_its_outputs(interval: float, max_batch: int | None) -> None:
    model = lstm()

    async def work(pool: al.AsyncStreamPool) -> None:
        async def client(me: int) -> None:
            draw = torch.Generator().manual_seed(me)
            for _ in range(2):
                stream, alone = pool.open(), al.stream(model)
                for n in torch.randint(0, 5, (12,), generator=draw).tolist():
                    frames = torch.randn(n, I, generator=draw)
                    want = alone.run(frames[:, None])[:, 0]
                    if n == 1:
                        assert torch.equal(await pool.push(stream, frames[0]), want[0])
                    elif n == 4:  # two that wait at once are answered in their order
                        both = await asyncio.gather(pool.push(stream, frames[:1]), pool.push(stream, frames[1:]))
                        assert torch.equal(torch.cat(both), want)
                    else:
                        assert torch.equal(await pool.push(stream, frames), want)
                stats = pool.stream_stats(stream)
                assert stats.steps == stats.pushed
                pool.close(stream)

        await asyncio.gather(*(client(me) for me in range(8)))
        assert pool.stats.timesteps > 0

    run(work, model, interval=interval, max_batch=max_batch)


def test_too_many_frames_are_refused_and_the_others_run() -> None:
    async def work(pool: al.AsyncStreamPool) -> None:
        stream = pool.open()
        pushes = [asyncio.ensure_future(pool.push(stream, torch.randn(2, I))) for _ in range(5)]
        found = await asyncio.gather(*pushes, return_exceptions=True)
        assert [type(one) for one in found] == [torch.Tensor] * 2 + [OverloadError] * 3
        assert pool.stream_stats(stream).steps == 4
        with pytest.raises(OverloadError, match="backlog"):
            await pool.push(stream, torch.randn(6, I))
        with pytest.raises(NonFiniteError):
            await pool.push(stream, torch.full((I,), torch.nan))
        with pytest.raises(InputError, match="never opened"):
            await pool.push(99, torch.randn(I))
        assert (await pool.push(stream, torch.randn(I))).shape == (H,)

    run(work, backlog=5, interval=0.05)


def test_what_is_closed_or_cancelled_is_told_so() -> None:
    async def work(pool: al.AsyncStreamPool) -> None:
        one, other = pool.open(), pool.open()
        waits = asyncio.ensure_future(pool.push(one, torch.randn(3, I)))
        dropped = asyncio.ensure_future(pool.push(other, torch.randn(I)))
        await asyncio.sleep(0)
        pool.close(one)
        dropped.cancel()
        with pytest.raises(InputError, match="was closed before"):
            await waits
        with pytest.raises(InputError, match="was closed, by close"):
            await pool.push(one, torch.randn(I))
        assert (await pool.push(other, torch.randn(I))).shape == (H,)
        assert pool.stream_stats(other).steps == 2

    run(work, interval=0.02)


def test_streams_move_with_the_frames_that_wait() -> None:
    model, x = lstm(), torch.randn(9, I)
    want = al.stream(model).run(x[:, None])[:, 0]
    here = al.StreamPool(model, 1)
    first = here.open()
    here.push(first, x[:4])
    here.tick()
    moved = here.snapshot(first)

    async def work(pool: al.AsyncStreamPool) -> None:
        stream = await pool.restore(moved)
        assert torch.equal(await pool.push(stream, x[4:7]), want[4:7])
        again = await pool.restore(await pool.snapshot(stream))
        assert torch.equal(await pool.push(again, x[7:]), want[7:])

    run(work, model)


def test_a_pool_that_has_stopped_says_so() -> None:
    def head(states: torch.Tensor) -> torch.Tensor:
        raise KeyError("no")

    model = adapted(I, H, L, policy=al.ExitInTime(head, threshold=0.5, check_every=1))
    left = al.AsyncStreamPool(model, 2)
    for interval in (-1, float("inf"), float("nan")):
        with pytest.raises(InputError, match="interval"):
            al.AsyncStreamPool(model, 2, interval=interval)

    async def main() -> None:
        with pytest.raises(InputError, match="does not run"):
            await left.push(left.open(), torch.randn(I))
        async with left as pool:
            stream = pool.open()
            pushes = [pool.push(stream, torch.randn(I)) for _ in range(2)]
            found = await asyncio.gather(*pushes, return_exceptions=True)
            assert [type(one) for one in found] == [KeyError] * 2
            with pytest.raises(InputError, match="a tick failed: KeyError"):
                await pool.push(stream, torch.randn(I))
        with pytest.raises(InputError, match="entered before"):
            async with left:
                pass
        slow = al.AsyncStreamPool(lstm(), 2, interval=30)
        async with slow as pool:
            late = asyncio.ensure_future(pool.push(pool.open(), torch.randn(I)))
            await asyncio.sleep(0)
        with pytest.raises(InputError, match="was left"):
            await late

    asyncio.run(main())


def test_idle_streams_make_room() -> None:
    now = [0.0]

    async def work(pool: al.AsyncStreamPool) -> None:
        quiet, busy = pool.open(), pool.open()
        now[0] = 4.0
        await pool.push(busy, torch.randn(I))
        now[0] = 6.0
        assert pool.open() not in (quiet, busy)
        with pytest.raises(InputError, match="because it was idle"):
            await pool.push(quiet, torch.randn(I))
        with pytest.raises(OverloadError):
            pool.open()
        await pool.push(busy, torch.randn(I))

    run(work, capacity=2, idle_timeout=5.0, clock=lambda: now[0])


@pytest.mark.filterwarnings("error")
def test_frames_of_a_snapshot_that_never_run_trouble_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for their outputs, so nobody is told that the pool was left before they had run."""
    model = lstm()
    here = al.StreamPool(model, 1)
    first = here.open()
    here.push(first, torch.randn(3, I))
    moved = here.snapshot(first)

    async def work(pool: al.AsyncStreamPool) -> None:
        pool.close(await pool.restore(moved))
        await pool.restore(moved)

    run(work, model, interval=30)
    gc.collect()
    assert not caplog.records
