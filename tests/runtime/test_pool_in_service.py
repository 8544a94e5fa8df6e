"""A pool as a service has it: many threads at once for a while, and a process that is killed."""

from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import InputError, NonFiniteError, OverloadError

from ..support.helpers import adapted, signal
from ..support.policy_cases import DELTA

I, THREADS, ROUNDS = 5, 32, 600  # noqa: E741 (the letter of the input size everywhere)


class Client(threading.Thread):
    """Opens three streams one after the other, pushes all frames of each, and makes mistakes."""

    def __init__(self, pool: al.StreamPool, me: int, given: dict[int, torch.Tensor]):
        super().__init__()
        self.pool, self.given = pool, given
        self.draw = torch.Generator().manual_seed(me)
        self.failed: BaseException | None = None

    def run(self) -> None:
        """Until every stream of this client has been pushed."""
        try:
            for _ in range(3):
                self.stream(self.chance(ROUNDS // 3) + 1)
        except BaseException as error:  # noqa: BLE001 (looked at by the test)
            self.failed = error

    def chance(self, n: int) -> int:
        return int(torch.randint(n, (), generator=self.draw))

    def stream(self, frames: int) -> None:
        """One stream of so many frames, all of which are run before it is over."""
        stream, x, at = self.pool.open(), torch.randn(frames, I, generator=self.draw), 0
        self.given[stream] = x
        while at < frames:
            n = min(1 + self.chance(4), frames - at)
            try:
                if n == 1:
                    self.pool.push_each([stream], x[at : at + 1])
                else:
                    self.pool.push(stream, x[at : at + n])
                at += n
            except OverloadError:
                self.wait_for(stream, at - 1)
            if not self.chance(9):
                with pytest.raises(InputError, match="shape"):
                    self.pool.push(stream, x[0, 1:])
                with pytest.raises(NonFiniteError):
                    self.pool.push(stream, x[0] * torch.nan)
        self.wait_for(stream, frames)
        if self.chance(2):
            self.pool.close(stream)

    def wait_for(self, stream: int, steps: int) -> None:
        """Until the stream has made so many steps."""
        while self.pool.stream_stats(stream).steps < steps:
            threading.Event().wait(0.0005)


@pytest.mark.slow
@pytest.mark.parametrize("max_batch", [None, 7])
def test_threads_lose_and_mix_nothing(max_batch: int | None) -> None:
    lstm = adapted(I, 9, 2)
    lstm.quantize = al.Quantize("int8", raw="int8", raw_scale=[4.0] * I)
    lstm.policy = DELTA
    pool = al.StreamPool(lstm, 3 * THREADS, backlog=6, max_batch=max_batch)
    given: dict[int, torch.Tensor] = {}
    got: dict[int, list[torch.Tensor]] = {}
    clients = [Client(pool, me, given) for me in range(THREADS)]
    for client in clients:
        client.start()
    while any(client.is_alive() for client in clients) or pool.waiting:
        for stream, y in pool.tick().items():
            got.setdefault(stream, []).append(y)
    for client in clients:
        client.join()
        assert client.failed is None
    assert given.keys() == got.keys() == set(range(3 * THREADS))
    for stream, frames in given.items():
        assert torch.equal(torch.stack(got[stream]), al.stream(lstm).run(frames[:, None])[:, 0])
    for stream in pool:
        assert pool.stream_stats(stream).steps == pool.stream_stats(stream).pushed == len(given[stream])
    assert pool.stats.timesteps == sum(map(len, given.values()))


SERVICE = """
import sys
from pathlib import Path
from tests.runtime.test_pool_in_service import served
served(Path(sys.argv[1]), kill_at=int(sys.argv[2]))
"""


def of() -> al.AdaptiveLSTM:
    """Two layers in int8 under a policy that remembers."""
    return adapted(I, 9, 2, policy=al.Combined(DELTA, al.SkipTimesteps(x_share=0.2)), quantize="int8")


def recording() -> torch.Tensor:
    """Frames [T, I]."""
    return signal(40, 1, I)[:, 0]


def served(folder: Path, kill_at: int) -> None:
    """Serve a recording from where the last process was killed; keep a snapshot after every frame."""
    torch.manual_seed(0)
    pool, x = al.StreamPool(of(), 3), recording()
    pool.open()
    kept = sorted(folder.glob("*.snapshot"))
    stream = pool.restore(kept[-1].read_bytes()) if kept else pool.open()
    for t in range(len(kept), len(x)):
        pool.push(stream, x[t])
        torch.save(pool.tick()[stream], folder / f"{t:03}.output")
        unfinished = folder / "unfinished"
        unfinished.write_bytes(pool.snapshot(stream))
        unfinished.rename(folder / f"{t:03}.snapshot")
        if t == kill_at:
            pool.push(stream, x[-1])  # is lost with the process
            os.kill(os.getpid(), signals.SIGKILL)


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    for kill_at in (6, 17, -1):
        done = subprocess.run([sys.executable, "-c", SERVICE, str(tmp_path), str(kill_at)], cwd=root, check=False)
        assert done.returncode == (-signals.SIGKILL if kill_at >= 0 else 0)
    y = torch.stack([torch.load(path, weights_only=True) for path in sorted(tmp_path.glob("*.output"))])
    want = al.stream(of()).run(recording()[:, None])[:, 0]
    torch.testing.assert_close(y, want, rtol=0, atol=1e-6)
