"""LSTMs from arrays of other frameworks, whose gates lie in other orders."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al

from ..support.helpers import assert_close, infer, signal, torch_lstm

I, H = 5, 7  # noqa: E741 (the letter of the input size everywhere)
X = signal(9, 3, I)


def reordered(value: torch.Tensor, order: str) -> np.ndarray:
    """Rows in torch's order i, f, g, o, put into another."""
    gates = dict(zip("ifgo", value.detach().chunk(4), strict=True))
    return torch.cat([gates["g" if gate in "cjz" else gate] for gate in order]).numpy(force=True)


def rows(lstm: nn.LSTM, order: str, suffix: str = "l0") -> list[np.ndarray]:
    kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if lstm.bias else [])]
    return [reordered(getattr(lstm, f"{kind}_{suffix}"), order) for kind in kinds]


def of_keras(lstm: nn.LSTM, suffix: str = "l0") -> list[np.ndarray]:
    """What ``layer.get_weights()`` gives: kernels transposed, one bias, gates i, f, c, o."""
    w_ih, w_hh, *biases = rows(lstm, "ifco", suffix)
    return [w_ih.T, w_hh.T, *([biases[0] + biases[1]] if biases else [])]


@pytest.mark.parametrize("order", ["".join(p) for p in itertools.permutations("ifco")] + ["ifgo", "ijfo", "zifo"])
def test_every_order(order: str) -> None:
    lstm = torch_lstm(I, H)
    fast = al.from_gates(rows(lstm, order), order)
    assert not fast.training
    for name, value in lstm.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value)
    assert_close(infer(fast, X), infer(lstm, X), "fp32")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("width", [1, 2, I, 4 * H])
def test_stacks_of_keras(width: int, layers: int, bidirectional: bool, bias: bool) -> None:
    lstm = torch_lstm(width, H, layers, bias=bias, bidirectional=bidirectional, batch_first=True)
    sides = ("", "_reverse")[: 1 + bidirectional]
    stack: Any = [[a for side in sides for a in of_keras(lstm, f"l{n}{side}")] for n in range(layers)]
    fast = al.from_gates(stack if layers > 1 else stack[0], "ifco", bidirectional=bidirectional, batch_first=True)
    x = signal(4, 9, width)
    assert_close(infer(fast, x), infer(lstm, x), "fp32")
    assert fast.bias is bias


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"proj_size": 3, "num_layers": 2}])
def test_names_of_torch(options: dict[str, Any]) -> None:
    lstm = torch_lstm(I, H, **options)
    named = {k: v.numpy() if "hr" in k else reordered(v, "oifc") for k, v in reversed(lstm.state_dict().items())}
    fast = al.from_gates(named, "oifc")
    for name, value in lstm.state_dict().items():
        assert torch.equal(fast.state_dict()[name], value)
    if not options:
        assert_close(infer(fast, X), infer(lstm, X), "fp32")


def test_what_arrays_may_be() -> None:
    lstm = torch_lstm(I, H)
    w_ih, w_hh, b_ih, b_hh = given = rows(lstm, "ifgo")
    want = infer(lstm, X)
    for arrays in (
        [torch.nn.Parameter(torch.from_numpy(a)) for a in given],
        tuple(a.tolist() for a in given),
        [a.astype(">f8") for a in given],
        [np.asfortranarray(w_ih), np.asfortranarray(w_hh), np.concatenate([b_ih, b_hh])],
    ):
        assert_close(infer(al.from_gates(arrays, "ifgo"), X), want, "fp32")
    fast = al.from_gates(given, "ifgo")
    w_hh[:] = 0  # the arrays are copied
    assert_close(infer(fast, X), want, "fp32")


LSTM = torch_lstm(I, H)
W_IH, W_HH, B, _ = rows(LSTM, "ifgo")
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": ([], "arrays: got an empty list, expected w_ih, w_hh"),
    "an array": (W_IH, "arrays: got ndarray, expected w_ih"),
    "one matrix": ([W_IH], "got 1 matrices and 0 biases, .*split a kernel of both"),
    "bias first": ([B, W_IH, W_HH], "layer 0, array 0: got .28,., expected w_ih"),
    "three biases": ([W_IH, W_HH, B, B, B], "2 matrices and 3 biases, .*peepholes"),
    "two layers in one": ([W_IH, W_HH, B, W_IH, W_HH, B], "directions, expected 1; bidirectional=True"),
    "two kernels": ([W_IH.T, W_HH, B], r"w_ih: got \(5, 28\) beside w_hh \(28, 7\), expected 28 = 4H"),
    "w_hh": ([W_IH, W_HH[:, :3]], r"w_hh: got \(28, 3\), expected \[4H, H\] or \[H, 4H\]"),
    "bias": ([W_IH, W_HH, B[:7]], r"bias: got \(7,\), expected \[4H\], 28 numbers"),
    "integers": ([W_IH.astype(int), W_HH], "layer 0, array 0: got ndarray of int64, expected an array of floats"),
    "words": ([W_IH, "kernel"], "array 1: got str of <U6, expected an array of floats"),
    "widths": ([[W_IH, W_HH], [np.zeros((12, 7), "f"), np.zeros((12, 3), "f")]], "weight_ih_l1: got .12, 7., expected"),
    "a layer that is none": ([[W_IH, W_HH], 3], "layer 1: got int, expected w_ih"),
    "names": ({"kernel": W_IH}, "got the name 'kernel', expected torch's, such as weight_ih_l0"),
    "no names": ({}, "got nothing, expected all cells"),
    "a missing layer": ({"weight_ih_l1": W_IH, "weight_hh_l1": W_HH}, "expected all cells of layers 0, 1"),
    "a missing matrix": ({"weight_ih_l0": W_IH}, "layer 0: got weight_ih, expected the matrices"),
    "rows": ({"weight_ih_l0": W_IH[:27], "weight_hh_l0": W_HH}, r"weight_ih_l0: got \(27, 5\), expected 4H rows"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_lstm(arrays: Any, message: str) -> None:
    with pytest.raises(al.errors.InputError, match=message):
        al.from_gates(arrays, "ifgo")


def test_a_layer_without_biases_among_others_has_zeros() -> None:
    fast = al.from_gates([[W_IH, W_HH], [W_HH, W_HH, B]], "ifgo")
    assert fast.bias
    assert not fast.state_dict()["bias_ih_l0"].any()
    assert torch.equal(fast.state_dict()["bias_ih_l1"], torch.from_numpy(B))


@pytest.mark.parametrize("order", ["", "ifg", "ifgg", "iffo", "ifgox", "ifcg", "IFGO", None, 3, ["i", "f", "g", "o"]])
def test_orders_that_are_none(order: Any) -> None:
    with pytest.raises(al.errors.InputError, match=r"order: got .*'ifgo' \(torch\), 'ifco' \(Keras\)"):
        al.from_gates([W_IH, W_HH], order)
