"""Where torch serves in place of a compressed LSTM, somebody is told, once; and eval() alone costs nothing."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

import adaptive_lstm as al

from ..support.helpers import adapted, infer, signal

X = signal(7, 2, 6)


@pytest.mark.parametrize("setting", ["quantize", "policy", "pruned"])
def test_a_forgotten_no_grad_is_told_once(setting: str) -> None:
    fast = adapted(6, 9, 2)
    if setting == "quantize":
        fast.quantize = al.Quantize("int8")
    elif setting == "policy":
        fast.policy = al.Delta.uniform(0.1)
    else:
        al.compress(fast, [X], prune=al.Prune("unit", 0.25))
    with pytest.warns(UserWarning, match="nn.LSTM itself served this call .gradients needed"):
        fast(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(X)
        infer(fast, X)
    with pytest.warns(UserWarning, match="nn.LSTM itself"):  # another LSTM tells of itself
        copy.deepcopy(fast)(X)


def test_an_exact_lstm_has_nothing_to_tell() -> None:
    fast = adapted(6, 9, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast(X)
        fast.train()(X)


def test_only_a_change_of_mode_plans_anew() -> None:
    fast = adapted(6, 9, 2, quantize="int8")
    infer(fast, X)
    planned = fast.executor()
    assert fast.eval().executor() is planned
    with torch.no_grad():
        fast.train()
        dict(fast.named_parameters())["weight_hh_l0"].data.mul_(0.5)
    assert fast.eval().executor() is not planned
