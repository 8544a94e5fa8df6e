"""Streams of a pool as bytes: they go on in another process, and what does not belong to a pool is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm import tensorfile
from adaptive_lstm.errors import OverloadError, StateError

from ..support.helpers import adapted, signal
from ..support.policy_cases import DELTA
from .test_stream_pool import POLICIES, I, bound, of

MOVED = """
import sys, torch
from pathlib import Path
import adaptive_lstm as al
from tests.runtime.test_stream_pool import POLICIES, of
name, folder = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(3)
lstm = of(POLICIES[name], "int8")
pool = al.StreamPool(lstm, 2)
pool.open()
stream = pool.restore((folder / "snapshot").read_bytes())
out = []
while pool.waiting:
    out.append(pool.tick()[stream])
for frame in torch.load(folder / "rest", weights_only=True):
    pool.push(stream, frame)
    out.append(pool.tick()[stream])
torch.save(torch.stack(out), folder / "found")
"""


@pytest.mark.parametrize("name", ["delta", "layers", "exit in time"])
def test_a_stream_moves_to_another_process(name: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    lstm, x = of(POLICIES[name], "int8"), signal(20, 1, I)[:, 0]
    pool = al.StreamPool(lstm, 3)
    stream = pool.open()
    for frame in x[:8]:
        pool.push(stream, frame)
        pool.tick()
    pool.push(stream, x[8:11])
    (tmp_path / "snapshot").write_bytes(pool.snapshot(stream))
    torch.save(x[11:], tmp_path / "rest")
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", MOVED, name, str(tmp_path)], cwd=root, check=True)
    found = torch.load(tmp_path / "found", weights_only=True)
    want = al.stream(lstm).run(x[:, None])[8:, 0]
    torch.testing.assert_close(found, want, rtol=0, atol=bound(name))


def test_a_deep_stack_that_skips_nothing_moves() -> None:
    """Its snapshot holds fewer arrays than there are layers."""
    lstm, x = adapted(I, 6, 5), signal(6, 1, I)[:, 0]
    pool = al.StreamPool(lstm, 2)
    pool.push(stream := pool.open(), x[:3])
    for _ in range(3):
        pool.tick()
    pool.push(moved := pool.restore(pool.snapshot(stream)), x[3])
    assert torch.equal(pool.tick()[moved], al.stream(lstm).run(x[:4, None])[3, 0])


def test_a_snapshot_that_does_not_belong_here_is_refused() -> None:
    lstm = of(DELTA)
    pool = al.StreamPool(lstm, 2, backlog=2)
    stream = pool.open()
    pool.push(stream, torch.randn(2, I))
    pool.tick()
    good = pool.snapshot(stream)
    header, arrays = tensorfile.loads(good, "stream snapshot", 1)

    def other(**changed: Any) -> bytes:
        return tensorfile.dumps("stream snapshot", 1, {**header, **changed}, arrays)

    def damaged(name: str, array: np.ndarray | None) -> bytes:
        kept = {key: value for key, value in arrays.items() if key != name}
        return tensorfile.dumps("stream snapshot", 1, header, kept if array is None else {**kept, name: array})

    wrong: list[tuple[Any, str]] = [
        (None, "expected the bytes"),
        (b"", "damaged"),
        (good[:-1], "damaged"),
        (tensorfile.dumps("model", 1, header, arrays), "expected adaptive_lstm stream snapshot"),
        (tensorfile.dumps("stream snapshot", 2, header, arrays), "upgrade"),
        (tensorfile.dumps("stream snapshot", 1, {}, arrays), "model"),
        (other(model="x"), "another model"),
        (other(cells=2), "layers"),
        (other(cells=-1), "counts"),
        (other(pushed=3), "nor those that wait"),
        (other(holds=10**9), "counts"),
        (other(exits=True), "exit"),
        (damaged("h", None), "h: got shape None"),
        (damaged("h", np.full_like(arrays["h"], np.inf)), "infinity"),
        (damaged("c", arrays["c"].astype(np.float64)), "float64"),
        (damaged("frames", np.zeros((1, I + 1), np.float32)), "frames"),
        (damaged("frames", np.full((1, I), np.nan, np.float32)), "frames"),
    ]
    trained = of(DELTA)
    with torch.no_grad():
        next(trained.parameters())[0, 0] += 0.1
    for foreign in (of(al.Delta.uniform(0.03)), of(DELTA, "int8"), of(DELTA).bfloat16(), trained):
        elsewhere = al.StreamPool(foreign, 1)
        wrong.append((elsewhere.snapshot(elsewhere.open()), "another model"))
    for data, message in wrong:
        with pytest.raises(StateError, match=message):
            pool.restore(data)
    more = {**header, "pushed": header["steps"] + 3}, {**arrays, "frames": np.zeros((3, I), np.float32)}
    with pytest.raises(OverloadError, match="backlog"):
        pool.restore(tensorfile.dumps("stream snapshot", 1, *more))
    assert list(pool) == [stream]
    again = tensorfile.loads(pool.snapshot(stream), "stream snapshot", 1)
    assert again[0] == header
    assert all(np.array_equal(again[1][name], array) for name, array in arrays.items())
    pool.restore(good)
    with pytest.raises(OverloadError, match="taken"):
        pool.restore(good)
