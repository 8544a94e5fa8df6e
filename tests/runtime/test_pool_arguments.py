"""What a pool of streams is given: any container of streams, memory for outputs; what is wrong harms nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError, OverloadError
from adaptive_lstm.runtime import array_pool

from ..support.policy_cases import DELTA
from .test_stream_pool import H, I, of


@pytest.mark.parametrize("names", [lambda s: dict.fromkeys(s), set, iter, tuple])
def test_streams_are_named_in_any_container(names: Callable[[list[int]], Any]) -> None:
    lstm = of(DELTA)
    pool, x = al.StreamPool(lstm, 2, backlog=1), torch.randn(2, I)
    streams = [pool.open(), pool.open()]
    pool.push_each(names(streams), x)
    with pytest.raises(OverloadError, match=f"stream {streams[0]}: got 1 frames while 1 wait"):
        pool.push_each(names(streams), x)
    assert torch.equal(torch.stack(list(pool.tick().values())), al.stream(lstm, 2).step(x))


def test_options_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="clock: got 5"):
        al.StreamPool(of(DELTA), clock=5)  # type: ignore[arg-type]

    def full(*args: Any) -> Any:
        raise MemoryError("Unable to allocate 640 GiB")

    monkeypatch.setattr(array_pool, "FrameQueue", full)
    with pytest.raises(InputError, match="backlog 64, whose waiting frames do not fit into memory"):
        al.StreamPool(of(DELTA))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_go_into_memory_of_inference_mode(dtype: torch.dtype) -> None:
    lstm = of(DELTA).to(dtype)
    pool, frame = al.StreamPool(lstm, 1), torch.randn(I, dtype=dtype)
    pool.push(pool.open(), frame)
    with torch.inference_mode():
        y = torch.empty(1, H, dtype=dtype)
    assert len(pool.tick_into(y)) == 1
    assert torch.equal(y, al.stream(lstm).step(frame[None]))


def test_what_is_wrong_harms_nobody() -> None:
    lstm = of(DELTA)
    pool, alone = al.StreamPool(lstm, 2), al.stream(lstm)
    stream, other = pool.open(), pool.open()
    frame = torch.randn(I)
    pool.push(stream, frame)
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (stream, torch.randn(I + 1), InputError, "shape"),
        (stream, torch.randn(1, 1, I), InputError, "shape"),
        (stream, torch.tensor(0.0), InputError, "shape"),
        (stream, frame.double(), InputError, "float64"),
        (stream, frame.numpy(), InputError, "expected a torch.Tensor"),
        (stream, frame.to_sparse(), InputError, "dense"),
        (stream, torch.full((I,), torch.nan), NonFiniteError, "NaN"),
        (stream, torch.full((2, I), torch.inf), NonFiniteError, "NaN"),
        (stream, torch.zeros(I, device="meta"), InputError, "meta"),
        (7, frame, InputError, "stream 7 was never opened"),
        (-1, frame, InputError, "never opened"),
        ("0", frame, InputError, "expected the number"),
        (True, frame, InputError, "expected the number"),
        (None, frame, InputError, "expected the number"),
        (stream, torch.zeros(65, I), OverloadError, "backlog"),
    ]
    for name, frames, kind, message in wrong:
        with pytest.raises(kind, match=message):
            pool.push(name, frames)
    for names, frames, message in (
        ([stream, stream], torch.zeros(2, I), "twice"),
        ([stream, 9], torch.zeros(2, I), "never opened"),
        ([stream], torch.zeros(2, I), "a frame for each"),
        ([stream], torch.zeros(I), "shape"),
        (None, torch.zeros(2, I), "streams: got None"),
        (5, torch.zeros(2, I), "streams: got 5"),
        ([stream, [other]], torch.zeros(2, I), "expected the number"),
        ([stream, {}], torch.zeros(2, I), "expected the number"),
        (iter([stream, "1"]), torch.zeros(2, I), "expected the number"),
    ):
        with pytest.raises(InputError, match=message):
            pool.push_each(names, frames)  # type: ignore[arg-type]
    for y in (torch.zeros(2, H + 1), torch.zeros(0, H), torch.zeros(2, H).double(), [0.0], torch.zeros(H)):
        with pytest.raises(InputError, match="y: got"):
            pool.tick_into(y)  # type: ignore[arg-type]
    memory, cut = torch.zeros(4 * H), torch.zeros(2, H)
    cut.untyped_storage().resize_(8)
    overlapping = memory[:H].expand(2, H), memory.as_strided((2, H), (1, 1)), memory.as_strided((2, H), (H - 1, 1))
    for y in (*overlapping, torch.zeros(H, 2).T, torch._efficientzerotensor((2, H)), torch._neg_view(memory[:H]), cut):
        with pytest.raises(InputError, match="y: got"):
            pool.tick_into(y)
    assert not memory.any()
    assert pool.stream_stats(stream).pushed == 1
    assert pool.stream_stats(other).pushed == 0
    huge = torch.full((I,), 1e30)
    pool.push(other, huge)
    assert torch.equal(pool.tick()[stream], alone.step(frame[None])[0])
    pool.close(other)
    for call in (pool.close, pool.snapshot, pool.stream_stats):
        with pytest.raises(InputError, match="was closed"):
            call(other)
    assert list(pool) == [stream]
    assert stream in pool
    assert other not in pool
    assert pool.tick() == {}
