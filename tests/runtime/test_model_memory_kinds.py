"""Where models keep what they remember: slots, classes, modules in lists; and closures, where nothing puts it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

import adaptive_lstm as al

SEQUENCES = [torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(n)) for n in range(80)]


class Recalls(nn.Module):
    """Goes on from the state of its last call, wherever a class below keeps it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(4, 12, batch_first=True), nn.Linear(12, 3)
        self.start()

    def start(self) -> None:
        """Make room for a state."""

    def get(self) -> Any:
        """The state, or None."""

    def put(self, state: Any) -> None:
        """Keep a state."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, state = self.lstm(x, self.get())
        self.put(state)
        return torch.as_tensor(self.head(y[:, -1]))


@dataclass(slots=True)
class Slots:
    """A state."""

    state: Any = None


class Base:
    """Something in a slot."""

    __slots__ = ("kept",)


class Derived(Base):
    """A slot that is not filled at first, beside attributes."""


class InSlots(Recalls):
    def start(self) -> None:
        self.memory = Slots()

    def get(self) -> Any:
        return self.memory.state

    def put(self, state: Any) -> None:
        self.memory.state = state


class InInheritedSlots(Recalls):
    def start(self) -> None:
        self.memory = {"own": Derived()}

    def get(self) -> Any:
        return getattr(self.memory["own"], "kept", None)

    def put(self, state: Any) -> None:
        self.memory["own"].kept = state  # type: ignore[attr-defined]


class OnClass(Recalls):
    state: Any = None

    def start(self) -> None:
        type(self).state = None

    def get(self) -> Any:
        return type(self).state

    def put(self, state: Any) -> None:
        type(self).state = state


class Part(nn.Module):
    """A module on whose class others write."""

    later: Any


class OnAnotherClass(Recalls):
    def start(self) -> None:
        self.part = Part()
        if "later" in vars(Part):
            del Part.later

    def get(self) -> Any:
        return vars(Part).get("later")

    def put(self, state: Any) -> None:
        Part.later = state


class InDictOfClass(Recalls):
    kept: ClassVar[dict[str, Any]] = {}

    def start(self) -> None:
        self.kept.clear()

    def get(self) -> Any:
        return self.kept.get("state")

    def put(self, state: Any) -> None:
        self.kept["state"] = state


class InModuleOfList(Recalls):
    def start(self) -> None:
        self.parts = [nn.Identity()]

    def get(self) -> Any:
        return getattr(self.parts[0], "state", None)

    def put(self, state: Any) -> None:
        self.parts[0].state = state


class InBufferOfList(Recalls):
    def start(self) -> None:
        self.parts = [nn.Sequential(nn.BatchNorm1d(12))]

    def get(self) -> Any:
        h = self.parts[0].get_buffer("0.running_mean").expand(1, 1, 12)
        return h, h

    def put(self, state: Any) -> None:
        self.parts[0].get_buffer("0.running_mean").copy_(state[0].detach()[0, 0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.get()[0].clone()
        y, state = self.lstm(x, (h, h))
        self.put(state)
        return torch.as_tensor(self.head(y[:, -1]))


class InClosure(Recalls):
    def start(self) -> None:
        kept: list[Any] = [None]

        def read() -> Any:
            return kept[0]

        def write(state: Any) -> None:
            kept[0] = state

        self.read, self.write = read, write

    def get(self) -> Any:
        return self.read()

    def put(self, state: Any) -> None:
        self.write(state)


STATE: list[Any] = [None]


class InGlobal(Recalls):
    def start(self) -> None:
        STATE[0] = None

    def get(self) -> Any:
        return STATE[0]

    def put(self, state: Any) -> None:
        STATE[0] = state


class InPlace(Recalls):
    def start(self) -> None:
        self.h = torch.zeros(1, 1, 12)

    def get(self) -> Any:
        return self.h, self.h

    def put(self, state: Any) -> None:
        self.h.copy_(state[0].detach())


RUNS: dict[str, Callable[[nn.Module], object]] = {
    "compress": lambda m: al.compress(m, SEQUENCES[:4], prune=al.Prune("unit", 0.25)),
    "within": lambda m: al.compress_within(m, SEQUENCES[:6], change=0.5, progress=False),
    "sensitivity": lambda m: al.measure_sensitivities(m, SEQUENCES[:4], progress=False),
    "calibrate": lambda m: al.calibrate(
        m, SEQUENCES, loss=al.losses.disagreement, max_loss=0.3, confidence=0.8, policies=[al.Delta], objective="macs",
        progress=False,
    ),
}  # fmt: skip
PUT_BACK = [InSlots, InInheritedSlots, OnClass, OnAnotherClass, InDictOfClass, InModuleOfList, InBufferOfList]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", PUT_BACK)
@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
def test_what_is_remembered_is_put_back(kind: type[Recalls], run: str, called: bool) -> None:
    fast: Any = al.adapt(kind().eval())
    if called:
        fast(SEQUENCES[0])  # with gradients
    kept = fast.get()
    values = None if kept is None else [one.detach().clone() for one in kept]
    RUNS[run](fast)
    now = fast.get()
    assert (now is None) == (values is None)
    assert all(map(torch.equal, now or [], values or []))


@pytest.mark.parametrize("kind", [InClosure, InGlobal])
def test_what_nothing_can_put_back_is_named(kind: type[Recalls]) -> None:
    fast = al.adapt(kind().eval())
    with pytest.raises(al.errors.InputError, match="in a closure or a global variable"):
        RUNS["compress"](fast)


@pytest.mark.parametrize("run", ["within", "calibrate"])
@pytest.mark.parametrize("kind", [InClosure, InGlobal])
def test_a_model_that_goes_on_does_not_repeat_itself(kind: type[Recalls], run: str) -> None:
    fast = al.adapt(kind().eval())
    with pytest.raises(al.errors.InputError, match="a state in a closure or a global variable"):
        RUNS[run](fast)


def test_a_state_that_is_written_in_place() -> None:
    with pytest.raises(al.errors.InputError, match="writes to it in place"):
        RUNS["compress"](al.adapt(InPlace().eval()))


class Cut(Recalls):
    """No gradient leads from its output to its LSTM."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "detach":
            y = self.lstm(x)[0].detach()
        elif self.how == "inference_mode":
            with torch.inference_mode():
                y = self.lstm(x)[0]
            y = y.clone()
        else:
            with torch.no_grad():
                y = self.lstm(x)[0]
        return torch.as_tensor(self.head(y[:, -1]))


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "detach"])
def test_an_lstm_without_gradients_ahead_of_a_head_with_them(how: str, run: str) -> None:
    with pytest.raises(al.errors.InputError, match=r"does not depend on any LSTM.*as far as gradients tell"):
        RUNS[run](al.adapt(Cut(how).eval()))
