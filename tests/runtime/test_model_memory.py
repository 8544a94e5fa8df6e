"""Models that remember something on themselves: nothing that runs them fails on it, or leaves anything behind."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al

SEQUENCES = [torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(n)) for n in range(80)]


class State(NamedTuple):
    """Of an LSTM."""

    h: torch.Tensor
    c: torch.Tensor


class Remembers(nn.Module):
    """Keeps its last state, a history and a counter on itself."""

    def __init__(self, wrap: Callable[[Any], Any]):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(4, 12, 2, batch_first=True), nn.Linear(12, 3)
        self.wrap = wrap
        self.memory: Any = None
        self.history: list[torch.Tensor] = []
        self.register_buffer("calls", torch.zeros(1))
        self.calls: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.lstm(x)
        self.memory = self.wrap(state)
        self.history.append(y[:, -1])
        self.calls += 1
        return torch.as_tensor(self.head(y[:, -1]))


@dataclass
class Memory:
    """An object that modules share."""

    state: Any = None
    steps: int = 0


class Notes(dict[str, Any]):
    """A mapping of its own class, as a model may take or hold."""


class Recalls(nn.Module):
    """Goes on from a state that it keeps in an object."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.memory = nn.LSTM(4, 12, batch_first=True), {"own": [Memory(Memory())]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        memory: Any = self.memory["own"][0]
        y, memory.state.state = self.lstm(x, memory.state.state)
        memory.steps += 1
        return torch.as_tensor(y)


WRAPS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda state: state,
    "list": list,
    "dict": lambda state: {"h": state[0], "deep": [{"c": state[1]}]},
    "others": lambda state: OrderedDict(last=deque([State(*state)], maxlen=2)),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_adapt_after_a_forward_with_gradients(wrap: Callable[[Any], Any]) -> None:
    model = Remembers(wrap).eval()
    model(SEQUENCES[0]).sum().backward()
    fast = al.adapt(model)
    assert fast.memory is not None
    assert len(fast.history) == 1
    with torch.no_grad():
        torch.testing.assert_close(fast(SEQUENCES[1]), model(SEQUENCES[1]))


RUNS: dict[str, Callable[[Remembers], object]] = {
    "compress": lambda m: al.compress(m, SEQUENCES[:4], prune=al.Prune("unit", 0.25)),
    "within": lambda m: al.compress_within(m, SEQUENCES[:6], change=0.5),
    "sensitivity": lambda m: al.measure_sensitivities(m, SEQUENCES[:4]),
    "translators": lambda m: al.fit_translators(m, SEQUENCES[:20]),
    "calibrate": lambda m: al.calibrate(
        m, SEQUENCES, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta], progress=False
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_nothing_is_left_behind(run: Callable[[Remembers], object], wrap: Callable[[Any], Any]) -> None:
    model = al.adapt(Remembers(wrap).eval())
    with torch.no_grad():
        model(SEQUENCES[0])
    kept, calls = model.memory, float(model.calls)
    run(model)
    assert len(model.history) == 1
    assert float(model.calls) == calls
    for got, want in zip(_tensors(model.memory), _tensors(kept), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("run", ["compress", "within", "sensitivity"])
def test_what_an_object_remembers_is_put_back(run: str) -> None:
    model = Recalls().eval()
    model(SEQUENCES[0])  # with gradients
    fast: Any = al.adapt(model)
    memory = fast.memory["own"][0]
    assert memory is not model.memory["own"][0]
    kept = [one.clone() for one in memory.state.state]
    RUNS[run](fast)
    assert fast.memory["own"][0] is memory
    assert memory.steps == 1
    assert all(map(torch.equal, memory.state.state, kept))
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(fast)(SEQUENCES[1]), fast(SEQUENCES[1]))


class Shares(nn.Module):
    """Two modules write into one cache, which leads back to itself; the LSTM remembers what it returned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.part = nn.LSTM(4, 12, batch_first=True), nn.Identity()
        self.cache: dict[str, Any] = {"last": torch.zeros(12), "all": [], "seen": set()}
        self.cache["itself"] = self.cache
        self.part.cache = self.cache  # type: ignore[assignment]
        self.sums = np.zeros(12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.lstm(x)
        self.lstm.last = state
        self.cache["last"].copy_(y[0, -1].detach())
        self.cache["all"].append(self.part(y))
        self.cache["seen"].add(x.shape)
        self.sums += y[0, -1].detach().numpy()
        return torch.as_tensor(y)


@pytest.mark.parametrize("run", RUNS)
def test_what_modules_share_stays_shared(run: str) -> None:
    fast: Any = al.adapt(Shares().eval())
    cache, last = fast.cache, fast.cache["last"]
    RUNS[run](fast)
    assert fast.cache is fast.part.cache is cache["itself"] is cache
    assert cache["last"] is last
    assert not last.any()
    assert not fast.sums.any()
    assert (cache["all"], cache["seen"]) == ([], set())
    assert not hasattr(fast.lstm, "last")
    with torch.no_grad():
        fast(SEQUENCES[0])
    assert len(fast.part.cache["all"]) == 1
    RUNS[run](fast)
    assert len(cache["all"]) == 1
    torch.testing.assert_close(cache["last"], cache["all"][0][0, -1])
    assert torch.equal(fast.lstm.last[0][0, 0], cache["last"])


def test_what_an_object_counts_without_tensors_is_its_own_affair() -> None:
    class Counts(Recalls):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            memory: Any = self.memory["own"][0]
            memory.seen[len(memory.seen)] = tuple(x.shape)
            memory.last["y"] = y = super().forward(x)
            return y

    model = Counts().eval()
    memory: Any = model.memory["own"][0]
    memory.seen, memory.last = {}, {}
    fast: Any = al.adapt(model)
    memory = fast.memory["own"][0]
    RUNS["sensitivity"](fast)
    assert len(memory.seen) >= 4
    assert memory.last == {}


def test_a_batch_of_its_own_class_stays_one() -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 12, batch_first=True)

        def forward(self, batch: Any) -> torch.Tensor:
            assert type(batch) is Notes
            return torch.as_tensor(self.lstm(batch["x"])[0])

    fast = al.adapt(Takes().eval())
    assert set(al.measure_sensitivities(fast, [Notes(x=SEQUENCES[0])], progress=False)) == {"lstm"}


@pytest.mark.parametrize("held", [threading.Lock, lambda: (n for n in range(3))])
def test_a_model_that_cannot_be_copied(held: Callable[[], Any]) -> None:
    model = Recalls().eval()
    model.memory["held"] = held()
    with pytest.raises(al.errors.InputError, match="Recalls cannot be copied"):
        al.adapt(model)


@pytest.mark.parametrize("run", ["sensitivity", "within"])
def test_what_an_input_gives_does_not_depend_on_those_before(run: str) -> None:
    """A model that goes on from its last state is compared with itself from the same state."""
    fast: Any = al.adapt(Recalls().eval())
    seen: list[torch.Tensor] = []

    def output(y: torch.Tensor) -> torch.Tensor:
        seen.append(y.detach().clone())
        return y

    if run == "within":
        al.compress_within(fast, SEQUENCES[:6], change=1e-9, output=output, progress=False)
    else:
        al.measure_sensitivities(fast, [SEQUENCES[0]] * 3, output=output, progress=False)
    with torch.no_grad():
        first = fast(SEQUENCES[0])
    of_first = [y for y in seen if torch.allclose(y, first, atol=1e-6)]
    assert len(of_first) >= (3 if run == "sensitivity" else 2)
    if run == "sensitivity":
        assert len(of_first) == len(seen)


def test_a_certificate_is_of_the_model_as_it_is_found(tmp_path: Path) -> None:
    """A buffer that every call writes holds the same before a calibration and after it."""
    model = al.adapt(Remembers(WRAPS["tuple"]).eval())
    found = RUNS["calibrate"](model)
    assert isinstance(found, al.Calibration)
    al.save(found.apply(model), tmp_path / "model", certificate=found.certificate)


def test_what_never_ran_stays_empty() -> None:
    model = al.adapt(Remembers(WRAPS["tuple"]).eval())
    RUNS["calibrate"](model)
    assert model.memory is None
    assert model.history == []


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value
    return [tensor for one in values for tensor in _tensors(one)]
