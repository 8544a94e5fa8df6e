"""Weights of a served LSTM that move, with the values they have, to where torch counts no writes: these are noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import adaptive_lstm as al

from ..support.helpers import adapted, assert_close, assert_equal, infer, infer_natively, signal
from ..support.helpers import torch_lstm as plain_lstm

X = signal(2, 1, 6)  # few timesteps: elsewhere, a look at all of the weights is due after 4,096
Move = Callable[[nn.Module, Path], None]


def shared(module: nn.Module, folder: Path) -> None:
    module.share_memory()


def one_is_shared(module: nn.Module, folder: Path) -> None:
    list(module.parameters())[1].share_memory_()


def made_in_inference_mode(module: nn.Module, folder: Path) -> None:
    with torch.inference_mode():
        module.load_state_dict({name: w.clone() for name, w in module.state_dict().items()}, assign=True)


def mapped(module: nn.Module, folder: Path) -> None:
    for name, weight in list(module.named_parameters()):
        file = folder / name
        file.write_bytes(weight.detach().numpy().tobytes())
        there = torch.from_file(str(file), shared=True, size=weight.numel()).view_as(weight)
        setattr(module, name, nn.Parameter(there, requires_grad=False))


def written(module: nn.Module, name: str) -> None:
    """One element, as another process writes it."""
    with torch.inference_mode():
        module.get_parameter(name).detach().numpy()[35, 3] = 2.0


MOVES = [shared, one_is_shared, made_in_inference_mode, mapped]


def values_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: w.detach().clone() for name, w in module.state_dict().items()}


def plain_with_weights_of(fast: al.AdaptiveLSTM) -> nn.LSTM:
    lstm = plain_lstm(6, 64, 1)
    lstm.load_state_dict(values_of(fast))
    return lstm


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("move", MOVES)
def test_a_write_after_weights_have_moved(move: Move, quantize: str, tmp_path: Path) -> None:
    fast = adapted(6, 64, 1, quantize=quantize)
    for _ in range(2):
        infer_natively(fast, X)
    move(fast, tmp_path)
    for _ in range(2):
        infer_natively(fast, X)
    written(fast, "weight_hh_l0")
    fresh = al.AdaptiveLSTM.from_lstm(plain_with_weights_of(fast))
    fresh.quantize = al.Quantize(quantize)  # type: ignore[arg-type]
    assert_equal(infer_natively(fast, X), infer_natively(fresh, X))


@pytest.mark.parametrize("move", MOVES)
def test_nothing_is_packed_anew_when_weights_move(move: Move, tmp_path: Path) -> None:
    fast = adapted(6, 64, 1)
    infer_natively(fast, X)
    planned = fast.executor()
    move(fast, tmp_path)
    infer_natively(fast, X)
    assert fast.executor() is planned


@pytest.mark.parametrize("move", MOVES)
def test_a_cell_whose_weights_have_moved(move: Move, tmp_path: Path) -> None:
    plain = nn.LSTMCell(6, 64).eval()
    fast = al.adapt(nn.Sequential(copy.deepcopy(plain)))[0]
    with torch.no_grad():
        for _ in range(2):
            fast(X[0])
        move(fast, tmp_path)
        for _ in range(2):
            fast(X[0])
        written(fast, "weight_ih")  # of the first step, h is 0
        plain.load_state_dict(values_of(fast))
        assert_close(fast(X[0]), plain(X[0]), "fp32")


def test_a_copy_of_a_served_module_moves(tmp_path: Path) -> None:
    fast = adapted(6, 64, 1)
    infer_natively(fast, X)
    other = copy.deepcopy(fast)
    infer_natively(other, X)
    shared(other, tmp_path)
    for _ in range(2):
        infer_natively(other, X)
    written(other, "weight_hh_l0")
    assert_close(infer_natively(other, X), infer(plain_with_weights_of(other), X), "fp32")


def dear(fast: al.AdaptiveLSTM) -> bool:
    """Whether every call compares everything."""
    infer_natively(fast, X)
    compiled = fast._compiled
    assert compiled is not None
    return compiled.fingerprint.dear


def test_weights_that_return_to_plain_memory_are_served_directly_again() -> None:
    fast = adapted(6, 64, 1)
    fast.share_memory()
    assert dear(fast)
    fast.load_state_dict(values_of(fast), assign=True)
    assert not dear(fast)
