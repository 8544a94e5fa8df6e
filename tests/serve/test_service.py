"""What a server does beside answering: audits, drift, a pool that fails, stores, its options and its command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.cli.demo import digits
from adaptive_lstm.errors import InputError
from adaptive_lstm.runtime.array_pool import StreamPool
from adaptive_lstm.runtime.monitor import Monitor, Range
from adaptive_lstm.serve import Audited, FolderStore, ServeOptions
from adaptive_lstm.serve.demo import demo
from adaptive_lstm.serve.refusals import Refusal
from adaptive_lstm.serve.sequences import Key
from adaptive_lstm.serve.service import CLOSED, IDLE, Service

from ..support.helpers import native_only
from .clients import Frames, alone, frames
from .servers import ROOT

pytestmark = native_only
KEY = Key("me", "mic")


async def run(service: Service, key: Key, x: Frames) -> Frames:
    """Frames of a sequence that is open, or new."""
    sequence = service.sequences.get(key) or service.start(key)
    y = await (await sequence.push(x))
    service.delivered(sequence, x, y)
    return y


def figures(service: Service) -> dict[str, float]:
    """What Prometheus would see."""
    samples = [sample for family in service.metrics.registry.collect() for sample in family.samples]
    return {
        ",".join([sample.name.removeprefix("adaptive_lstm_"), *sample.labels.values()]): sample.value
        for sample in samples
    }


def test_the_demo_is_the_model_of_the_demo() -> None:
    x = np.random.default_rng(0).random((30, 1, 16), np.float32)
    with torch.no_grad():
        want, _ = digits.load_model().lstm(torch.from_numpy(x).transpose(0, 1))
    np.testing.assert_allclose(demo().run(x).y[:, 0], want[0].numpy(), rtol=0, atol=1e-5)


@dataclass
class Audit:
    """Stands for ``al.Audit``."""

    state: str = "holding"
    evidence: float = 0.5
    audited: int = 0
    mean_loss: float = 0.25


def test_an_audit_sees_sequences_from_their_start(lstm: deploy.LSTM) -> None:
    audit, seen = Audit(), list[tuple[Frames, Frames]]()

    def check(x: Frames, y: Frames) -> None:
        seen.append((x, y))
        audit.audited += 1
        if len(seen) == 2:
            audit.state = "revoked"
            raise KeyError("what a check raises is logged, and streams go on")

    async def main() -> None:
        service = Service(lstm, ServeOptions(), audited=Audited(audit, check, share=1.0, frames=10))
        async with service.running():
            x = frames(0, 24, lstm.shape.input_size)
            y = [await run(service, KEY, part) for part in np.split(x, 4)]  # longer than what is compared
            short = service.start(Key("me", "short"))
            service.delivered(short, x[:2], await (await short.push(x[:2])))
            service.close(short, CLOSED)
            silent = service.start(Key("me", "silent"))
            service.close(silent, CLOSED)
            while len(seen) < 2:
                await asyncio.sleep(0.01)
            found = figures(service)
            assert (found["audit_state,revoked"], found["audit_state,holding"], found["audit_state,off"]) == (1, 0, 0)
            assert (found["audited_total"], found["audit_evidence"], found["audit_mean_loss"]) == (2, 0.5, 0.25)
            np.testing.assert_array_equal(np.concatenate(y), alone(lstm, x))
            for (kept_x, kept_y), n in zip(seen, (10, 2), strict=True):
                np.testing.assert_array_equal(kept_x, x[:n])
                np.testing.assert_array_equal(kept_y, alone(lstm, x)[:n])
            moved = await service.restore(Key("me", "moved"), (await service.sequences.get(KEY).snapshot())[0])  # type: ignore[union-attr]
            service.close(moved, CLOSED)
        assert len(seen) == 2

    asyncio.run(main())


class Outputs(torch.nn.Module):
    """An LSTM of which only the outputs count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(5, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


def test_an_audit_revokes_what_it_must(tmp_path: Path) -> None:
    """What is served skips nearly everything."""
    original = Outputs().eval()
    fast = al.adapt(original)
    assert isinstance(fast.lstm, al.AdaptiveLSTM)
    fast.lstm.policy = al.SkipTimesteps(x_share=0.9)
    al.save(fast, tmp_path / "model.alstm", weights=True)
    lstm = deploy.load(tmp_path / "model.alstm").lstm
    with al.audit(fast, original, loss=al.losses.clipped_error(0.1), rate=1.0, max_loss=0.05) as audit:

        def check(x: Frames, y: Frames) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                audit.check(torch.tensor(x)[:, None], torch.tensor(y)[:, None])

        async def main() -> None:
            service = Service(lstm, ServeOptions(), audited=Audited(audit, check, share=1.0))
            async with service.running():
                for k in range(60):
                    await run(service, Key("me", str(k)), frames(k, 20, 5))
                    service.close(service.going_on(Key("me", str(k))), CLOSED)
                while audit.seen < 60:
                    await asyncio.sleep(0.01)
                assert figures(service)["audit_state,revoked"] == 1

        asyncio.run(main())


@pytest.mark.filterwarnings("ignore::adaptive_lstm.runtime.monitor.DriftWarning")
def test_drift_is_shown(file: Path) -> None:
    watched = deploy.load(file).lstm
    watched.monitor = Monitor({"activity": Range(0.01, 0.001, 100)})

    async def main() -> None:
        service = Service(watched, ServeOptions(backlog=2048))
        async with service.running():
            assert figures(service)["drift"] == 0
            await run(service, KEY, frames(0, 2000, 5))
            assert figures(service)["drift"] == 1

    asyncio.run(main())


def test_a_pool_that_fails_is_neither_live_nor_ready(lstm: deploy.LSTM, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(pool: StreamPool) -> Any:
        raise MemoryError("no")

    async def main() -> None:
        service = Service(lstm, ServeOptions())
        async with service.running():
            assert figures(service)["ready"] == 1
            monkeypatch.setattr(StreamPool, "tick", broken)
            with pytest.raises(MemoryError):
                await run(service, KEY, frames(0, 1, 5))
            assert not service.pool.running
            assert figures(service)["ready"] == 0
            with pytest.raises(Refusal, match="the pool of this replica has stopped"):
                service.start(Key("me", "other"))

    asyncio.run(main())


def test_only_new_frames_are_stored_and_idle_streams_closed(lstm: deploy.LSTM, tmp_path: Path) -> None:
    now = [0.0]

    class Counting(FolderStore):
        puts = 0

        async def put(self, key: Key, snapshot: bytes) -> None:
            Counting.puts += 1
            await super().put(key, snapshot)

    async def main() -> None:
        options = ServeOptions(checkpoint=0.04, idle_timeout=100)
        service = Service(lstm, options, Counting(tmp_path), clock=lambda: now[0])
        async with service.running():
            await run(service, KEY, frames(0, 3, 5))
            now[0] = 1.0
            while Counting.puts < 1:
                await asyncio.sleep(0.01)
            now[0] = 2.0
            await asyncio.sleep(0.1)  # ten times the beat
            assert Counting.puts == 1
            await run(service, KEY, frames(0, 3, 5))
            now[0] = 3.0
            while Counting.puts < 2:
                await asyncio.sleep(0.01)
            sequence = service.sequences.get(KEY)
            assert sequence is not None
            now[0] = 104.0
            await sequence.ended.wait()
            assert sequence.end == IDLE
            assert len(service.sequences) == 0
            with pytest.raises(Refusal, match="has ended: idle"):
                await sequence.push(frames(0, 1, 5))
            resumed = await service.resume(KEY)
            assert resumed.frames == 6

    asyncio.run(main())


def test_a_slow_store_has_the_last_word(lstm: deploy.LSTM, tmp_path: Path) -> None:
    """Nobody hears that a stream has moved before it is there, and no snapshot outlives a sequence that was closed."""
    ends = list[object]()

    class Slow(FolderStore):
        async def put(self, key: Key, snapshot: bytes) -> None:
            sequence = service.sequences.get(key)
            ends.append(None if sequence is None else sequence.end)
            putting.set()
            await go_on.wait()
            await super().put(key, snapshot)

    async def main() -> None:
        closed = Key("me", "closed")
        async with service.running():
            await run(service, KEY, frames(0, 3, 5))
            await run(service, closed, frames(0, 3, 5))
            await putting.wait()  # a checkpoint of both is on its way
            sequence = service.going_on(closed)
            service.close(sequence, CLOSED)
            forgetting = asyncio.ensure_future(service.forget(closed, sequence))
            draining = asyncio.ensure_future(service.drain())
            await asyncio.sleep(0.05)
            go_on.set()
            await asyncio.gather(forgetting, draining)
            assert await store.get(closed) is None
            assert await store.get(KEY) is not None
            assert ends == [None] * len(ends)

    putting, go_on, store = asyncio.Event(), asyncio.Event(), Slow(tmp_path)
    service = Service(lstm, ServeOptions(checkpoint=0.04), store)
    asyncio.run(main())


def test_restoring_that_nobody_waits_for_leaves_no_stream(lstm: deploy.LSTM) -> None:
    async def main() -> None:
        service = Service(lstm, ServeOptions(streams=2))
        async with service.running():
            await run(service, KEY, frames(0, 3, 5))
            found = service.sequences.get(KEY)
            assert found is not None
            snapshot, seen = await found.snapshot()
            assert seen == 3
            for k in range(5):
                restoring = asyncio.ensure_future(service.restore(Key("me", f"{k}"), snapshot))
                await asyncio.sleep(0)
                restoring.cancel()
                await asyncio.gather(restoring, return_exceptions=True)
                assert restoring.cancelled()
            await service.pool.snapshot(found.stream)  # after all that was asked of the pool's thread before
            await asyncio.sleep(0)
            with pytest.raises(Refusal, match="open; close it first"):
                await service.restore(KEY, snapshot)
            await service.restore(Key("me", "last"), snapshot)
            with pytest.raises(Refusal, match="2 are open, which is all"):
                service.start(Key("me", "one too many"))

    asyncio.run(main())


def test_a_sequence_that_ends_while_its_snapshot_is_taken_says_so(lstm: deploy.LSTM) -> None:
    async def main() -> None:
        service = Service(lstm, ServeOptions())
        async with service.running():
            await run(service, KEY, frames(0, 3, 5))
            sequence = service.going_on(KEY)
            taking = asyncio.ensure_future(sequence.snapshot())
            await asyncio.sleep(0)
            service.close(sequence, CLOSED)
            found = await asyncio.gather(taking, return_exceptions=True)
            assert isinstance(found[0], Refusal | tuple), found  # the snapshot may have come first

    asyncio.run(main())


def test_a_folder_keeps_snapshots_apart_and_not_for_ever(tmp_path: Path) -> None:
    now = [0.0]

    async def main() -> None:
        store = FolderStore(tmp_path / "new" / "folder", keep=50, clock=lambda: now[0])
        now[0] = (tmp_path / "new").stat().st_mtime
        names = [Key("a", "b"), Key("ab", ""), Key("", "ab"), Key("../..", "/etc/passwd"), Key("\0", "\n")]
        for k, key in enumerate(names):
            assert await store.get(key) is None
            await store.put(key, bytes([k]))
        assert [await store.get(key) for key in names] == [bytes([k]) for k in range(len(names))]
        assert {path.parent for path in tmp_path.rglob("*.snapshot")} == {tmp_path / "new" / "folder"}
        await store.drop(names[0])
        await store.drop(names[0])
        assert await store.get(names[0]) is None
        now[0] += 100
        assert await store.get(names[1]) is None
        await store.put(names[0], b"x")
        assert len(list(tmp_path.rglob("*.snapshot"))) <= 1

    asyncio.run(main())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be used"):
        FolderStore(tmp_path / "file")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "a/b"), ("name", ""), ("streams", 0), ("streams", 2.0), ("streams_per_client", -1), ("backlog", True),
        ("max_batch", 0), ("interval", -1), ("interval", float("nan")), ("max_bytes", 2**40), ("idle_timeout", 0),
        ("checkpoint", float("inf")), ("client_header", "a b"), ("client_header", 3),
    ],
)  # fmt: skip
def test_bad_options(option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{option}: got"):
        replace(ServeOptions(), **{option: value})


def test_the_command_explains_itself_and_its_errors(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        module = [sys.executable, "-m", "adaptive_lstm.serve", *arguments]
        return subprocess.run(module, capture_output=True, text=True, cwd=ROOT, check=False, timeout=60)

    told = command("--help").stdout
    assert "without FILE, through that of the demo" in told
    assert all(f"--{name.replace('_', '-')}" in told for name in vars(ServeOptions()))
    for arguments, error in (
        (["absent.alstm"], "no such file"),
        (["--streams", "0"], "streams: got 0"),
        (["--host", "256.0.0.1"], ""),
        (["--port", "99999"], "port must be 0-65535"),
        (["--snapshots", "/proc/nothing"], "cannot be used"),
    ):
        done = command(*arguments)
        assert done.returncode == 2, done
        assert done.stderr.startswith("python -m adaptive_lstm.serve: error: ")
        assert error in done.stderr


@pytest.mark.parametrize("missing", ["uvicorn", "starlette", "prometheus_client"])
def test_a_missing_package_is_named(missing: str) -> None:
    blocked = (
        f"import sys; sys.modules[{missing!r}] = None; from adaptive_lstm.serve.command import main; sys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert f"the package {missing}, which is not installed: pip install 'adaptive-lstm[serve]'" in done.stderr
