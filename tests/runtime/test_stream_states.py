"""States that are assigned: checked whole, then set whole, whatever they hold and whoever else uses the stream."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al
from adaptive_lstm.errors import AdaptiveLSTMError, BusyError, StateError
from adaptive_lstm.policies import Map, TimeTranslators

from ..support.helpers import adapted, assert_equal, signal

I, H, B = 5, 8, 2  # noqa: E741 (the letter of the input size everywhere)
replace: Any = dataclasses.replace  # types that are wrong on purpose
GENERATOR = np.random.default_rng(0)


def drawn_map() -> Map:
    return Map(GENERATOR.standard_normal((H, 2 * H)).astype(np.float32), np.zeros(H, np.float32))


EXIT = al.ExitInTime(
    None, threshold=0.001, translators=TimeTranslators((0, 4), (drawn_map(), drawn_map())), check_every=1, patience=3
)
LATE = al.HoldLayers(x_share=0.5, mode="queue_input", cap=4)
IN_PYTHON = al.ExitInTime(lambda s: s[:, :3], threshold=0.99, check_every=1, patience=3)


def leaves(state: al.StreamState) -> list[Any]:
    """Everything in a state, in order."""
    parts = [state, *state.hold, *([] if state.exit is None else [state.exit])]
    values = [value for part in parts for value in vars(part).values()]
    each = [v for value in values for v in (value if isinstance(value, tuple) else [value])]
    return [v for v in each if isinstance(v, torch.Tensor)]


def same(a: al.StreamState, b: al.StreamState) -> bool:
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(torch.equal(torch.as_tensor(x).nan_to_num(7.0), torch.as_tensor(y).nan_to_num(7.0)) for x, y in pairs)


def nested(_: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "numpy": lambda t: t.numpy(),
    "list": lambda t: t.tolist(),
    "nothing": lambda t: None,
    "another dtype": lambda t: t.half() if t.is_floating_point() else t.float(),
    "another shape": lambda t: t[..., None],
    "twice as long": lambda t: torch.cat([t, t]),
    "meta": lambda t: t.to("meta"),
    "sparse": lambda t: t.to_sparse(),
    "nested": nested,
    "complex": lambda t: t.to(torch.complex64),
}
NUMBERS: dict[str, dict[str, Any]] = {
    "time": {"2**63 - 2": 2**63 - 2, "negative": -1},
    "streak": {"negative": -1, "beyond the patience": 3, "huge": 2**63 - 1},
    "run": {"negative": -2, "huge": 2**63 - 1},
    "queued": {"negative": -1, "beyond the cap": 5, "huge": 2**63 - 1},
}


def assign(stream: al.Stream, state: Any, name: str) -> None:
    stream.state = state
    pytest.fail(f"{name} was taken over")


def wrong_states(state: al.StreamState) -> Iterator[tuple[str, Any]]:
    """States that differ from a good one in one part."""
    yield "a dict", vars(state)
    yield "nothing", None
    for name in ("sent_x", "sent_h"):
        yield f"{name} is None", replace(state, **{name: None})
        yield f"{name} is a list", replace(state, **{name: list(getattr(state, name))})
    yield "hold of tensors", replace(state, hold=(state.h, state.h))
    yield "exit is a dict", replace(state, exit={"time": 3})
    for name in ("h", "c"):
        for kind, change in TENSORS.items():
            yield f"{name}: {kind}", replace(state, **{name: change(getattr(state, name))})
        yield f"{name}: NaN", replace(state, **{name: torch.full_like(getattr(state, name), math.nan)})
    at = next((i for i, held in enumerate(state.hold) if held.queued is not None), 0)
    inner = state.exit if state.exit is not None else state.hold[at] if state.hold else None

    def with_hold(made: Any) -> Any:
        return replace(state, hold=(*state.hold[:at], made, *state.hold[at + 1 :]))

    if state.hold and (queued := state.hold[at].queued) is not None:
        counts = {"run": torch.full_like(queued, 1), "queued": torch.full_like(queued, 2)}
        yield "queued: more than held", with_hold(replace(state.hold[at], **counts))
    for name, value in vars(inner).items() if inner is not None else ():
        changes = {kind: change(value) for kind, change in TENSORS.items()} if isinstance(value, torch.Tensor) else {}
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel():
            changes["infinity"] = torch.full_like(value, math.inf)
        for kind, number in NUMBERS.get(name, {}).items() if value is not None else ():
            changes[kind] = torch.full_like(value, number)
        if name == "time":
            changes |= {f"{kind!r}": kind for kind in (2**64, 3, 3.0, True, "3")}
        for kind, other in changes.items():
            made = replace(inner, **{name: other})
            yield f"{name}: {kind}", replace(state, exit=made) if state.exit is not None else with_hold(made)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize(
    "policy", [al.Delta.uniform(0.05), EXIT, LATE, IN_PYTHON], ids=["delta", "exit", "hold", "exit in Python"]
)
def test_a_wrong_state_changes_nothing(policy: al.Policy, dtype: torch.dtype) -> None:
    x = signal(9, B, I).to(dtype)
    lstm = adapted(I, H, 2, policy=policy).to(dtype)
    with al.stream(lstm, batch_size=B) as s, al.stream(lstm, batch_size=B) as undisturbed:
        s.run(x[:4])
        undisturbed.run(x[:4])
        good, stats, tried = s.state, s.stats, 0
        for name, wrong in wrong_states(good):
            with pytest.raises(StateError):
                assign(s, wrong, name)
            assert same(s.state, good), name
            assert s.stats == stats, name
            tried += 1
        assert tried > 20
        assert_equal(s.run(x[4:]), undisturbed.run(x[4:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_any_memory_will_do(dtype: torch.dtype) -> None:
    lstm, x = adapted(I, H, 2, policy=al.Delta.uniform(0.05)).to(dtype), signal(9, B, I).to(dtype)
    kinds: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "strided": lambda t: torch.stack([t, t], dim=-1)[..., 0],
        "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
        "needs grad": lambda t: t.clone().requires_grad_(),
        "parameter": lambda t: torch.nn.Parameter(t.clone()),
        "negative bit": lambda t: torch.complex(torch.zeros_like(t), -t).conj().imag,
    }
    with al.stream(lstm, batch_size=B) as s, al.stream(lstm, batch_size=B) as other:
        s.run(x[:4])
        good = s.state
        want = s.run(x[4:])
        for change in kinds.values():
            other.state = good.map(change)
            assert same(other.state, good)
            assert not other.state.h.requires_grad
            torch.testing.assert_close(other.run(x[4:]), want, rtol=0, atol=1e-6)
        other.state = replace(
            good, h=good.h[:, :1].expand(-1, B, -1), c=torch._efficientzerotensor(good.c.shape, dtype=good.c.dtype)
        )
        assert not other.state.c.any()
        assert torch.equal(other.state.h[:, 1], good.h[:, 0])


@pytest.mark.parametrize("policy", [al.Delta.uniform(0.05), IN_PYTHON], ids=["native", "exit in Python"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_a_stream_is_looked_at_while_it_is_advanced(policy: al.Policy, dtype: torch.dtype) -> None:
    lstm, x = adapted(I, 64, 2, policy=policy).to(dtype), signal(20, 1, I).to(dtype)
    with al.stream(lstm) as s:
        done = threading.Event()
        seen: list[tuple[int, int]] = []
        errors: list[Exception] = []

        def look() -> None:
            try:
                while not done.is_set():
                    stats, state = s.stats, s.state
                    seen.append((stats.timesteps, stats.columns[0].x_possible))
                    assert torch.isfinite(state.h).all()
                    assert s.exited.shape == (1,)
            except Exception as error:  # noqa: BLE001 (a thread's errors are looked at below)
                errors.append(error)

        watcher = threading.Thread(target=look)
        watcher.start()
        for _ in range(30):
            s.run(x)
            for row in x[:5]:
                s.step(row)
        done.set()
        watcher.join()
        assert not errors
        assert s.stats.timesteps == 30 * 25
        assert all(columns == steps * I for steps, columns in seen)


@pytest.mark.parametrize("policy", [al.Delta.uniform(0.05), IN_PYTHON], ids=["native", "exit in Python"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_a_second_thread_is_told_that_the_stream_is_busy(policy: al.Policy, dtype: torch.dtype) -> None:
    lstm, x, ready = adapted(32, 64, 2, policy=policy).to(dtype), signal(60, 1, 32).to(dtype), threading.Barrier(2)
    with al.stream(lstm) as s:
        refused: list[Exception] = []
        good = [0, 0]

        def work(me: int) -> None:
            ready.wait()
            for k in range(15):
                try:
                    s.run(x) if k % 3 else s.step(x[0])
                    good[me] += 60 if k % 3 else 1
                except Exception as error:  # noqa: BLE001 (likewise)
                    refused.append(error)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(isinstance(error, BusyError) and isinstance(error, AdaptiveLSTMError) for error in refused)
        assert s.stats.timesteps == sum(good)
