"""The policies of a case."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import adaptive_lstm as al
from adaptive_lstm.policies import DepthTranslators, LinearHead, Map, StartStates, TimeTranslators
from adaptive_lstm.policies.head import MEASURES, confidence
from adaptive_lstm.types import FloatArray, Site, StackShape, sites

from ..target import Case
from .model import generator


def policy_of(case: Case, shape: StackShape) -> al.Policy:
    """What may be left out."""
    parts: list[al.Policy] = []
    makers = {"delta": _delta, "hold": _hold, "time": _time_exit, "depth": _depth_exit, "split": _split}
    for name, make in makers.items():
        if case[name] != "no":
            parts += make(case[name], shape, random.Random(f"{case['seed']} {name}"), generator(case, name))
    return parts[0] if len(parts) == 1 else al.Combined(*parts) if parts else al.Dense()


def _floats(g: torch.Generator, *size: int) -> FloatArray:
    return torch.randn(*size, generator=g, dtype=torch.float32).numpy()


# -------------------------------------------------------------------------------------------------------- columns


class Curves:
    """Saliencies and curves of columns, drawn at random: what ``measure_sensitivity`` would measure."""

    def __init__(self, shape: StackShape, choice: random.Random):
        self._shape, self._random = shape, np.random.default_rng(choice.randrange(2**31))

    @property
    def shape(self) -> StackShape:
        return self._shape

    def columns(self, site: Site, gamma: float) -> npt.NDArray[np.float64]:
        return self._random.random(site.width)

    def column_curves(self, site: Site) -> Curves:
        return self

    def thresholds_at_price(self, price: npt.NDArray[np.float64]) -> FloatArray:
        return (self._random.random(len(price)) / (1 + price)).astype(np.float32)


def _delta(kind: str, shape: StackShape, choice: random.Random, g: torch.Generator) -> list[al.Policy]:
    def per_column(site: Site) -> tuple[float, ...] | None:
        if choice.random() < 0.2:
            return None
        t = np.abs(_floats(g, site.width)) * choice.choice((0.01, 0.1))
        t[_floats(g, site.width) > 1] = choice.choice((0.0, float("inf")))
        return tuple(t.tolist())

    if kind == "priced":
        if choice.random() < 0.5:
            return [al.Delta.priced(Curves(shape, choice), choice.choice((0.1, 10.0)), raw=choice.random() < 0.5)]
        return [al.Delta.scaled(Curves(shape, choice), choice.choice((0.01, 0.1)))]
    if kind in ("per column", "raw too"):
        every = sites(shape)
        h, x = ([s for s in every if s.operand == operand] for operand in "hx")
        raw = kind == "raw too"
        xs = tuple(per_column(s) if raw or not s.raw else None for s in x)
        return [al.Delta(h=tuple(per_column(s) for s in h), x=xs)]
    return [al.Delta.uniform({"uniform": choice.choice((0.01, 0.05, 0.3)), "repeats only": 1e-9, "zero": 0.0}[kind])]


# -------------------------------------------------------------------------------------------------------- holding


def _hold(kind: str, shape: StackShape, choice: random.Random, g: torch.Generator) -> list[al.Policy]:
    def skip(mode: Any) -> al.Policy:
        x, h = choice.choice(((0.1, None), (0.5, 0.1), (None, 0.1), (0.0, None), (1.5, None)))
        return al.SkipTimesteps(x_share=x, h=h, mode=mode, cap=choice.choice((1, 2, 8, 2**30)))

    def hold() -> al.Policy:
        each = tuple(choice.choice((None, 0.0, 0.05, 0.3)) for _ in range(shape.num_layers - 1))
        return al.HoldLayers(
            x_share=choice.choice((0.05, 0.3, each)), h=choice.choice((None, None, 0.1)), cap=choice.choice((1, 3, 8))
        )

    if kind == "queue":
        at = choice.randrange(1, shape.num_layers)
        limits = tuple(choice.uniform(0.05, 0.6) if k == at else None for k in range(1, shape.num_layers))
        h = choice.choice((None, 0.1))
        return [al.HoldLayers(x_share=limits, h=h, mode="queue_input", cap=choice.choice((1, 2, 9)))]
    if kind == "hold layers":
        return [hold()]
    first = skip("hold_state" if kind == "skip state" else choice.choice(("hold_gates", "hold_state"))
                 if kind == "skip and hold" else "hold_gates")  # fmt: skip
    return [first, hold()] if kind == "skip and hold" else [first]


# ---------------------------------------------------------------------------------------------------------- exits


def _head(width: int, choice: random.Random, g: torch.Generator) -> LinearHead:
    activation = choice.choice(("softmax", "sigmoid"))
    classes = choice.choice((2, 3, 20)) if activation == "softmax" else choice.choice((1, 2))
    return LinearHead(3 * _floats(g, classes, width) / width**0.5, 0.1 * _floats(g, classes), activation)  # type: ignore[arg-type]


def _measure(choice: random.Random) -> Any:
    return choice.choice(MEASURES)


def _map(out: int, width: int, g: torch.Generator) -> Map:
    return Map(_floats(g, out, width) / width**0.5, 0.1 * _floats(g, out))


class PythonHead:
    """A head that only Python can run."""

    def __init__(self, head: LinearHead):
        self.head = head

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.head(states))


def _time_exit(kind: str, shape: StackShape, choice: random.Random, g: torch.Generator) -> list[al.Policy]:
    width = shape.output_size
    more: dict[str, Any] = {"check_every": choice.randint(1, 4), "patience": choice.randint(1, 2)}
    if choice.random() < 0.5:
        starts = choice.choice(((0,), (0, 2), (0, 3, 4)))
        more["translators"] = TimeTranslators(starts, tuple(_map(width, shape.num_layers * width, g) for _ in starts))
    if kind == "settled":
        return [al.ExitInTime(None, threshold=choice.uniform(0.02, 0.4), window=choice.randint(1, 3), **more)]
    head, measure = _head(width, choice, g), _measure(choice)
    if kind == "never":
        return [al.ExitInTime(head, **more)]
    more["threshold"] = _threshold(head, width, measure, g, choice)
    return [al.ExitInTime(PythonHead(head) if kind == "python head" else head, measure=measure, **more)]


def _threshold(head: LinearHead, width: int, measure: Any, g: torch.Generator, choice: random.Random) -> float:
    """Such that some states pass and some do not."""
    states = torch.from_numpy(0.5 * _floats(g, 64, width))
    return float(confidence(head, states, measure).quantile(choice.uniform(0.3, 0.95)))


def _depth_exit(kind: str, shape: StackShape, choice: random.Random, g: torch.Generator) -> list[al.Policy]:
    width = shape.directions * shape.output_size

    def maps() -> tuple[Map, ...]:
        return tuple(_map(width, (k + 1) * width, g) for k in range(shape.num_layers - 1))

    translators = DepthTranslators(maps(), maps())
    level: Any = "sequence" if kind.startswith("sequence") else "step"
    if "agreement" in kind:
        return [al.ExitInDepth(None, translators=translators, threshold=choice.uniform(0.3, 1.2), level=level)]
    head, measure = _head(width, choice, g), _measure(choice)
    if kind == "never":
        return [al.ExitInDepth(head, translators=translators, level=choice.choice(("step", "sequence")))]
    threshold = _threshold(head, width, measure, g, choice)
    return [al.ExitInDepth(head, translators=translators, threshold=threshold, measure=measure, level=level)]


# ------------------------------------------------------------------------------------------------------- splitting


def _split(kind: str, shape: StackShape, choice: random.Random, g: torch.Generator) -> list[al.Policy]:
    """Whether a chunk runs again is never a matter of rounding."""
    start = None
    if kind == "from states":
        h, c = (
            tuple(0.5 * _floats(g, n) for _ in range(shape.num_cells)) for n in (shape.output_size, shape.hidden_size)
        )
        start = StartStates(h, c)
    tolerance = 0.0 if kind == "always repeated" else math.inf
    return [al.SplitTime(chunk=choice.randint(1, 3), warm_up=choice.randint(1, 3), tolerance=tolerance, start=start)]
