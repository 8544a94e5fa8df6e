"""A family to search names a class of policies and its fixed settings; what cannot be searched is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.policies import FitData, Map, TimeTranslators
from adaptive_lstm.types import StackShape

MAP = Map(np.zeros((7, 7), np.float32), np.zeros(7, np.float32))


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        (al.ExitInTime, {"threshold": 0.9}, "threshold: the search chooses it for ExitInTime; remove it"),
        (al.ExitInTime, {"translators": TimeTranslators((0,), (MAP,))}, "translators: the search chooses it"),
        (al.Delta, {"h": 0.1}, "h: the search chooses it for Delta"),
        (al.Delta, {"tau": 0.1}, "tau: Delta has no such setting, expected none at all"),
        (al.SkipTimesteps, {"patience": 2}, "patience: SkipTimesteps has no such setting, expected cap, h$"),
        (al.SkipTimesteps, {"cap": 0}, "cap: got 0"),
        (al.ExitInTime, {"head": 3}, "head: got int"),
        (al.Dense, {}, "got <class .*Dense'>, expected a class of policies with search sweeps"),
        (al.Delta(), {}, r"got Delta\(\.\.\.\), a policy with fixed settings; write Family\(Delta\)"),
        (al.Combined(al.Delta()), {}, "expected a class of policies such as Delta"),
        ("Delta", {}, "got 'Delta', expected a class"),
        (nn.LSTM, {}, "got <class"),
    ],
)
def test_what_is_no_family(policy: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(al.errors.PolicyError, match=message):
        al.Family(policy, **settings)


def test_a_family_keeps_its_settings() -> None:
    head = nn.Linear(6, 3)
    family = al.Family(al.ExitInTime, head=head, patience=2)
    with torch.no_grad():
        before = head.weight.clone()
        head.weight.zero_()
    made = family.make(threshold=0.5)
    assert isinstance(made, al.ExitInTime)
    assert isinstance(made.head, al.LinearHead)
    assert np.array_equal(made.head.weight, before.numpy())  # as it was when the family was made
    assert (made.patience, made.threshold) == (2, (0.5,))
    assert repr(al.Family(al.SkipTimesteps, cap=3)) == "Family(SkipTimesteps, cap=3)"
    with pytest.raises(AttributeError):
        family.settings = {}  # type: ignore[misc]
    with pytest.raises(TypeError):
        family.settings["patience"] = 3  # type: ignore[index]


def test_a_queue_is_searched_one_layer_at_a_time() -> None:
    family = al.Family(al.HoldLayers, mode="queue_input", cap=5)
    shapes = {"deep": StackShape(3, 4, 3), "flat": StackShape(4, 4, 1)}
    assert family.kind.sweeps is not None
    sweeps = list(family.kind.sweeps(family, FitData(shapes, {}, {})))
    assert [sweep.make(0.1) for sweep in sweeps] == [
        {"deep": al.HoldLayers(x_share=(0.1, None), mode="queue_input", cap=5)},
        {"deep": al.HoldLayers(x_share=(None, 0.1), mode="queue_input", cap=5)},
    ]
    with pytest.raises(al.errors.UnsupportedError, match="queues inputs needs one direction"):
        family.check(StackShape(3, 4, 2, bidirectional=True))
