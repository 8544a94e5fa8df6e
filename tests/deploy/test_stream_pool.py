"""Pools without torch: the bits of lone streams, snapshots that move to and from torch's pools, and what is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import deploy, tensorfile
from adaptive_lstm.artifact.weights import write_replaced
from adaptive_lstm.errors import InputError, NonFiniteError, OverloadError, StateError, UnsupportedError

from ..runtime.test_stream_pool import POLICIES, I, bound, of
from ..support.artifact_cases import lstm_of, prune, read_file, write_file
from ..support.helpers import adapted, native_only, signal
from ..support.policy_cases import DELTA, SHAPES, STACK, depths

pytestmark = native_only
H = 9
SAVED = [name for name in POLICIES if name != "exit in Python"]
X = signal(30, 1, I)[:, 0].numpy()


def saved(folder: Path, fast: al.AdaptiveLSTM) -> deploy.LSTM:
    al.save(fast, folder / "model.alstm", weights=True)
    return deploy.load(folder / "model.alstm").lstm


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("name", SAVED)
def test_streams_are_those_of_their_own(tmp_path: Path, name: str, quantize: str) -> None:
    lstm = saved(tmp_path, of(POLICIES[name], quantize))
    pool, rest, draw = (
        lstm.stream_pool(3, backlog=4, max_batch=2),
        dict[int, list[np.ndarray]](),
        np.random.default_rng(0),
    )
    alone: dict[int, deploy.Stream] = {}
    for turn in range(60):
        if len(rest) < 3:
            stream = pool.open()
            alone[stream], rest[stream] = lstm.stream(), list(X[turn % 20 : turn % 20 + 4])
            pool.push(stream, np.stack(rest[stream]))
        streams, y = pool.advance() if turn % 2 else list(zip(*pool.tick().items(), strict=True)) or ((), ())
        for one, got in zip(streams, y, strict=True):
            want = alone[one].step(rest[one].pop(0)[None])[0]
            np.testing.assert_allclose(got, want, rtol=0, atol=bound(name))
            assert pool.stream_stats(one).done == alone[one].exited[0]
            if not rest[one] and draw.random() < 0.7:
                pool.close(one)
                del rest[one], alone[one]
            elif not rest[one]:
                pool.push_each([one], X[turn % 30][None])
                rest[one].append(X[turn % 30])
    assert pool.stats.timesteps > 60
    assert set(pool) == set(rest)


@pytest.mark.parametrize("way", ["plain", "pruned", "bf16 module", "two sets of weights"])
def test_snapshots_move_between_torch_and_deploy(tmp_path: Path, way: str) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    fast.quantize, fast.policy = al.Quantize("int8", raw="int8", raw_range="dynamic"), al.SkipTimesteps(x_share=0.2)
    if way == "bf16 module":
        fast = fast.bfloat16()
    if way in ("pruned", "two sets of weights"):
        prune(fast)
    lstm = saved(tmp_path, fast)
    if way == "two sets of weights":  # as where none in float32 round to those that are executed
        assert fast.replaced is not None
        header, arrays = read_file(tmp_path / "model.alstm")
        header["lstms"][""]["replaced"] = True
        write_replaced(fast.replaced, "0.replaced", arrays)
        write_file(tmp_path / "model.alstm", header, arrays)
        lstm = deploy.load(tmp_path / "model.alstm").lstm
    x = torch.from_numpy(X).to(fast.get_parameter("weight_ih_l0").dtype)
    there, here = al.StreamPool(fast, 2), lstm.stream_pool(2)
    first, second = there.open(), here.open()
    there.push(first, x[:5])
    here.push(second, x[:5].float().numpy())
    for _ in range(3):
        there.tick(), here.tick()
    moved, other = there.snapshot(first), here.snapshot(second)
    (header, arrays), (same, equal) = (tensorfile.loads(one, "stream snapshot", 1) for one in (moved, other))
    assert header == same
    assert {name: a.tobytes() for name, a in arrays.items()} == {name: a.tobytes() for name, a in equal.items()}
    here.close(second)
    there.close(first)
    first, second = there.restore(other), here.restore(moved)
    with lstm.stream() as alone:
        want = alone.run(x[:5].float().numpy()[:, None])[3:, 0]
    for t in range(2):
        np.testing.assert_array_equal(here.tick()[second], want[t])
        assert torch.equal(there.tick()[first], torch.from_numpy(want[t]).to(x.dtype))


def test_what_does_not_belong_here_is_refused(tmp_path: Path) -> None:
    lstm = saved(tmp_path, of(DELTA, "int8"))
    pool = lstm.stream_pool(2, backlog=2)
    stream = pool.open()
    wrong: list[tuple[Any, type[Exception], str]] = [
        (X[0, 1:], InputError, "shape"),
        (X[None], InputError, "shape"),
        (3.0, InputError, "shape"),
        ("frame", InputError, "real numbers"),
        (X[0] * np.nan, NonFiniteError, "NaN"),
        (X[0].astype(np.float64) * 1e300, NonFiniteError, "NaN"),
        (X[:3], OverloadError, "backlog"),
    ]
    for frames, kind, message in wrong:
        with pytest.raises(kind, match=message):
            pool.push(stream, frames)
    with pytest.raises(InputError, match="shape"):
        pool.push_each([stream], X[0])
    assert pool.push(stream, X[0].tolist()) == 1
    assert pool.push(stream, X[:0]) == 0
    narrow, still = np.zeros((2, H), np.float32)[:, ::2], np.zeros((2, H), np.float32)
    still.flags.writeable = False
    for y in (np.zeros((2, H + 1), np.float32), np.zeros((0, H), np.float32), np.zeros((2, H)), narrow, still, [0.0]):
        with pytest.raises(InputError, match="y: got"):
            pool.tick_into(y)  # type: ignore[arg-type]
    y = np.zeros((2, H), np.float32)
    assert pool.tick_into(y) == [stream]
    np.testing.assert_array_equal(y[0], lstm.stream().step(X[:1])[0])
    elsewhere = saved(tmp_path, of(DELTA)).stream_pool(1)
    with pytest.raises(StateError, match="another model"):
        pool.restore(elsewhere.snapshot(elsewhere.open()))
    with pytest.raises(InputError, match="capacity"):
        lstm.stream_pool(0)
    with pytest.raises(UnsupportedError, match="bidirectional"):
        saved(tmp_path, adapted(I, H, 1, bidirectional=True)).stream_pool()
    with pytest.raises(UnsupportedError, match="level='step'"):
        saved(tmp_path, of(depths(STACK, "sequence")["head"])).stream_pool()


def test_idle_streams_make_room(tmp_path: Path) -> None:
    now = 0.0
    pool = saved(tmp_path, of(DELTA)).stream_pool(1, idle_timeout=5.0, clock=lambda: now)
    quiet = pool.open()
    now = 6.0
    assert pool.open() != quiet
    with pytest.raises(InputError, match="because it was idle"):
        pool.push(quiet, X[0])


def test_asyncio(tmp_path: Path) -> None:
    lstm = saved(tmp_path, of(POLICIES["skip"], "int8"))
    want = lstm.stream().run(X[:, None])[:, 0]

    async def client(pool: deploy.AsyncStreamPool) -> None:
        stream = pool.open()
        np.testing.assert_array_equal(await pool.push(stream, X[0]), want[0])
        both = await asyncio.gather(pool.push(stream, X[1:4].tolist()), pool.push(stream, X[4:5]))
        np.testing.assert_array_equal(np.concatenate(both), want[1:5])
        assert (await pool.push(stream, X[:0])).shape == (0, H)
        moved = await pool.snapshot(stream)
        pool.close(stream)
        np.testing.assert_array_equal(await pool.push(await pool.restore(moved), X[5:9]), want[5:9])

    async def main() -> None:
        async with deploy.AsyncStreamPool(lstm.stream_pool(8), interval=0.0) as pool:
            await asyncio.wait_for(asyncio.gather(*(client(pool) for _ in range(8))), 60)
            assert pool.stats.timesteps == 8 * 9

    asyncio.run(main())
