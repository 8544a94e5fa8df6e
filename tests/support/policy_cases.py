"""Policies to test the native core with: each by itself and with others, and random combinations."""

import math
import random
from typing import Any

import pytest
import torch

from adaptive_lstm.policies import (
    Combined,
    Delta,
    DepthTranslators,
    ExitInDepth,
    ExitInTime,
    HoldLayers,
    LinearHead,
    Map,
    Policy,
    SkipTimesteps,
    TimeTranslators,
)
from adaptive_lstm.policies.head import MEASURES, Measure
from adaptive_lstm.types import StackShape


def head(width: int, classes: int = 3, activation: Any = "softmax", gain: float = 3.0) -> LinearHead:
    w = gain * torch.randn(classes, width) / math.sqrt(width)
    return LinearHead(w.numpy(), (0.1 * torch.randn(classes)).numpy(), activation)


def affine(out: int, width: int) -> Map:
    w = torch.randn(out, width) / math.sqrt(width)
    return Map(w.numpy(), (0.1 * torch.randn(out)).numpy())


def time_translators(shape: StackShape, starts: tuple[int, ...] = (0, 5, 11)) -> TimeTranslators:
    width = shape.output_size
    return TimeTranslators(starts, tuple(affine(width, shape.num_layers * width) for _ in starts))


def depth_translators(shape: StackShape) -> DepthTranslators:
    width = shape.directions * shape.output_size

    def maps() -> tuple[Map, ...]:
        return tuple(affine(width, (k + 1) * width) for k in range(shape.num_layers - 1))

    return DepthTranslators(maps(), maps())


STACK = StackShape(5, 9, 3)
BOTH_WAYS = StackShape(5, 9, 3, bidirectional=True)
PROJECTED = StackShape(5, 19, 3, proj_size=7)
SHAPES = {"plain": STACK, "both ways": BOTH_WAYS, "projected": PROJECTED}

DELTA = Delta.uniform(0.02)


def holdings() -> dict[str, Policy]:
    return {
        "gates": SkipTimesteps(x_share=0.1),
        "gates by h": SkipTimesteps(x_share=0.2, h=0.05, cap=5),
        "state": SkipTimesteps(x_share=0.15, mode="hold_state", cap=3),
        "state by h alone": SkipTimesteps(x_share=None, h=0.04, mode="hold_state"),
        "layers": HoldLayers(x_share=0.1),
        "layers by h": HoldLayers(x_share=0.2, h=0.1, cap=4),
        "top layer": HoldLayers(x_share=(None, 0.15)),
        "gates and layers": Combined(SkipTimesteps(x_share=0.05), HoldLayers(x_share=(0.1, None), h=0.2)),
        "catch up": HoldLayers(x_share=(0.1, None), mode="queue_input"),
        "catch up at the top": HoldLayers(x_share=(None, 0.15), mode="queue_input", cap=3),
        "catch up by h": HoldLayers(x_share=(0.2, None), h=0.1, mode="queue_input", cap=5),
    }


def times(shape: StackShape) -> dict[str, Policy]:
    width = shape.output_size
    return {
        "head": ExitInTime(head(width), threshold=0.5, check_every=3),
        "head, patience": ExitInTime(head(width), threshold=0.3, check_every=2, patience=2),
        "translated head": ExitInTime(
            head(width), threshold=(0.6, 0.5, 0.3), translators=time_translators(shape), check_every=4
        ),
        "translated sigmoids": ExitInTime(
            head(width, 2, "sigmoid"),
            threshold=0.2,
            measure="entropy",
            translators=time_translators(shape),
            starts=(0,),
            check_every=3,
        ),
        "largest of many": ExitInTime(head(width, 40), threshold=0.2, measure="max", check_every=1),
        "settled": ExitInTime(None, threshold=0.06, check_every=2, window=2),
        "settled translation": ExitInTime(
            None, threshold=0.05, translators=time_translators(shape), check_every=1, window=3, patience=2
        ),
    }


def depths(shape: StackShape, level: Any) -> dict[str, Policy]:
    width, translators = shape.directions * shape.output_size, depth_translators(shape)
    return {
        "head": ExitInDepth(translators=translators, head=head(width), threshold=0.5, level=level),
        "by layer": ExitInDepth(
            translators=translators, head=head(width), threshold=(float("inf"), 0.2), measure="entropy", level=level
        ),
        "sigmoids": ExitInDepth(
            translators=translators,
            head=head(width, 2, "sigmoid"),
            threshold=0.3,
            measure="max" if width > 1 else "margin",
            level=level,
        ),
        "agreement": ExitInDepth(translators=translators, head=None, threshold=0.75, level=level),
    }


def families() -> list[Any]:
    """Every policy by itself and with others: (shape, policy, whether it can stream). "delta": with column skipping."""
    out: list[Any] = []

    def add(name: str, shape: StackShape, policy: Policy, streams: bool = True) -> None:
        out.append(pytest.param(shape, policy, streams and not shape.bidirectional, id=name))

    torch.manual_seed(0)
    for way, shape in SHAPES.items():
        exact = [] if shape.bidirectional else ["catch up", "catch up at the top", "catch up by h"]
        held = {name: p for name, p in holdings().items() if "catch up" not in name or name in exact}
        rough = [p for name, p in held.items() if name not in exact]
        for i, (name, policy) in enumerate(held.items()):
            add(f"{way}-hold-{name}", shape, policy)
            if i % 2 == 0:
                add(f"{way}-hold-{name}-delta", shape, Combined(DELTA, policy))
        for i, level in enumerate(("step", "sequence")):
            for j, (name, policy) in enumerate(depths(shape, level).items()):
                add(f"{way}-depth-{level}-{name}", shape, policy, level == "step")
                both = Combined(policy, rough[(5 * i + j) % len(rough)])
                add(f"{way}-depth-{level}-{name}-hold", shape, both, level == "step")
                if j < 2:
                    add(f"{way}-depth-{level}-{name}-hold-delta", shape, Combined(DELTA, both), level == "step")
        if shape.bidirectional:
            continue
        for i, (name, policy) in enumerate(times(shape).items()):
            add(f"{way}-time-{name}", shape, policy)
            add(f"{way}-time-{name}-hold", shape, Combined(policy, list(held.values())[(3 * i) % len(held)]))
            if i % 3 == 0:
                add(f"{way}-time-{name}-delta", shape, Combined(DELTA, policy, rough[i]))
                step = list(depths(shape, "step").values())[i % 4]
                add(f"{way}-time-{name}-depth", shape, Combined(policy, step, rough[i]))
    return out


FAMILIES = families()


def random_policy(shape: StackShape, choice: random.Random) -> Policy:
    """A combination that is allowed, of kinds drawn at random."""
    one_way, deep = not shape.bidirectional, shape.num_layers > 1
    chosen: list[Policy] = [DELTA] if choice.random() < 0.3 else []
    exact = one_way and deep and choice.random() < 0.25
    if exact:
        at = choice.randrange(1, shape.num_layers)
        limits = tuple(choice.uniform(0.05, 0.4) if layer == at else None for layer in range(1, shape.num_layers))
        chosen.append(
            HoldLayers(x_share=limits, h=choice.choice((None, 0.1)), mode="queue_input", cap=choice.randint(1, 9))
        )
    else:
        if choice.random() < 0.5:
            modes = ("hold_gates", "hold_state")
            x, h = choice.choice(((0.1, None), (0.3, 0.1), (None, 0.1)))
            chosen.append(SkipTimesteps(x_share=x, h=h, mode=choice.choice(modes), cap=choice.randint(1, 9)))  # type: ignore[arg-type]
        if deep and choice.random() < 0.5:
            chosen.append(
                HoldLayers(x_share=choice.uniform(0.02, 0.3), h=choice.choice((None, 0.1)), cap=choice.randint(1, 9))
            )
    width = shape.directions * shape.output_size
    measure: Measure = MEASURES[choice.randrange(3)]  # type: ignore[assignment]
    some_head = head(width, choice.choice((2, 3, 20)), choice.choice(("softmax", "sigmoid")))
    timed = one_way and choice.random() < 0.4
    if timed:
        common: dict[str, Any] = {"check_every": choice.randint(1, 5), "patience": choice.randint(1, 2)}
        if choice.random() < 0.5:
            common["translators"] = time_translators(shape)
        if choice.random() < 0.5:
            chosen.append(ExitInTime(some_head, threshold=choice.uniform(0.1, 0.6), measure=measure, **common))
        else:
            chosen.append(ExitInTime(None, threshold=0.1, window=choice.randint(1, 3), **common))
    if deep and not exact and choice.random() < 0.4:
        level: Any = "step" if timed else choice.choice(("step", "sequence"))
        if choice.random() < 0.6 or shape.num_layers < 3:
            chosen.append(
                ExitInDepth(
                    translators=depth_translators(shape),
                    head=some_head,
                    threshold=choice.uniform(0.1, 0.6),
                    measure=measure,
                    level=level,
                )
            )
        else:
            chosen.append(ExitInDepth(translators=depth_translators(shape), head=None, threshold=0.7, level=level))
    policy = Combined(*chosen)
    policy.check(shape)
    return policy
