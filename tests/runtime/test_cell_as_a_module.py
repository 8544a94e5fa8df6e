"""What else happens to an ``AdaptiveLSTMCell``: copies, files, torch's tools, and arguments that do not fit."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

import adaptive_lstm as al

from ..support.cells import adapted, cell_of
from ..support.helpers import assert_close, assert_equal, infer

# ---------------------------------------------------------------------------------------------------- copies and torch


def pickled(cell: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(cell))  # type: ignore[no-any-return]


def saved(cell: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(cell, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)  # type: ignore[no-any-return]


def copied_as_lstm(cell: al.AdaptiveLSTMCell) -> nn.Module:
    return copy.deepcopy(cell.as_lstm).cell


def pickled_as_lstm(cell: al.AdaptiveLSTMCell) -> nn.Module:
    lstm: Any = pickled(cell.as_lstm)
    return lstm.cell  # type: ignore[no-any-return]


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, pickled, saved, copied_as_lstm, pickled_as_lstm])
def test_copies_keep_their_settings(copied: Callable[[nn.Module], Any]) -> None:
    fast = adapted(cell_of(6, 9), "int8")
    x = torch.randn(2, 6)
    expected = infer(fast, x)
    other = copied(fast)
    assert isinstance(other, al.AdaptiveLSTMCell)
    assert other.quantize == al.Quantize("int8")
    assert_equal(infer(other, x), expected)
    other.quantize = al.Quantize()
    assert fast.quantize == al.Quantize("int8")
    if copied is not copy.copy:  # whose weights are the same
        with torch.no_grad():
            other.weight_ih.zero_()
    assert_equal(infer(fast, x), expected)


def test_a_cell_is_freed_at_once() -> None:
    """It does not wait for the garbage collector, which comes late where few objects hold large weights."""
    gc.collect()
    gc.disable()
    try:
        fast = adapted(cell_of(6, 9), "int8")
        infer(fast, torch.zeros(1, 6))
        assert fast.last_run is not None
        seen = weakref.ref(fast)
        del fast
        assert seen() is None
    finally:
        gc.enable()


def test_what_it_holds_is_what_a_cell_holds() -> None:
    cell = cell_of(6, 9)
    fast = adapted(cell, "int8")
    infer(fast, torch.zeros(1, 6))
    assert isinstance(fast, nn.LSTMCell)
    assert list(fast.state_dict()) == list(cell.state_dict())
    assert [name for name, _ in fast.named_modules()] == [""]
    cell.load_state_dict(fast.state_dict())
    assert repr(fast) == "AdaptiveLSTMCell(6, 9, quantize=int8)"
    assert repr(adapted(cell)) == "AdaptiveLSTMCell(6, 9)"


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_transforms_and_tools() -> None:
    cell = cell_of(6, 9)
    fast = adapted(cell)
    x, h, c = torch.randn(3, 6), torch.randn(3, 9), torch.randn(3, 9)
    weights = {name: value * 0.5 for name, value in cell.named_parameters()}
    assert_close(functional_call(fast, weights, (x, (h, c))), functional_call(cell, weights, (x, (h, c))), "fp32")
    assert_close(fast(x), cell(x), "fp32")
    with pytest.raises(al.errors.UnsupportedError, match="put the mapped dimension into the batch"):
        vmap(fast)(x[:, None])  # torch has no rule for it
    traced = torch.jit.trace(lambda a, b, d: fast(a, (b, d)), (x, h, c))
    assert_close(traced(x[:2], h[:2], c[:2]), cell(x[:2], (h[:2], c[:2])), "fp32")
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(fast(x), cell(x), "fp32")
    symbolic = torch.fx.symbolic_trace(nn.Sequential(fast))
    assert_close(symbolic(x), cell(x), "fp32")
    with pytest.raises(al.errors.UnsupportedError, match="script the model that was given to adapt"):
        torch.jit.script(fast)
    meta = copy.deepcopy(fast).to("meta")
    assert meta(x.to("meta"))[0].shape == (3, 9)


# ----------------------------------------------------------------------------------------------------------- bad input


H, C = torch.zeros(2, 9), torch.zeros(2, 9)
X = torch.zeros(2, 6)
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "width": ((torch.zeros(2, 5),), "5 features, expected input_size = 6"),
    "rows of a state": ((X, (H[:1], C)), r"h_0: got \(1, 9\), expected a tensor of shape \(2, 9\)"),
    "width of a state": ((X, (H, C[:, :8])), r"c_0: got \(2, 8\), expected a tensor of shape \(2, 9\)"),
    "layers": ((X, (H[None], C[None])), r"h_0: got \(1, 2, 9\), expected a tensor of shape \(2, 9\)"),
    "one state": ((X, (H, None)), "c_0: got NoneType, expected a tensor"),
    "a state alone": ((X, H), r"got hx of type Tensor, expected \(h_0, c_0\)"),
    "three states": ((X, (H, C, C)), r"got hx of type tuple, expected \(h_0, c_0\)"),
    "dtype of a state": ((X, (H.double(), C.double())), "h_0: got torch.float64"),
    "a sequence": ((torch.zeros(3, 2, 6),), "an input of 3 dimensions"),
    "a number": ((torch.tensor(1.0),), "an input of 0 dimensions"),
    "no tensor": (([[0.0] * 6],), "got list, expected a torch.Tensor"),
    "sparse": ((X.to_sparse(),), "layout torch.sparse_coo"),
    "no batch beside states": ((X[0], (H, C)), r"expected a tensor of shape \(9,\)"),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("args", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused(args: Any, message: str, precision: str) -> None:
    fast = adapted(cell_of(6, 9), precision)
    for _ in range(2):
        with pytest.raises(al.errors.InputError, match=message):
            infer(fast, *args)
        infer(fast, X, (H, C))


def test_what_is_not_finite() -> None:
    cell = cell_of(6, 9)
    exact, quantized = adapted(cell), adapted(cell, "int8")
    bad = X.clone()
    bad[1, 2] = float("nan")
    for _ in range(2):
        assert_close(infer(exact, bad)[0][:1], infer(cell, bad)[0][:1], "fp32")
        assert infer(exact, bad)[0][1].isnan().all()
        for args in ((bad,), (X, (H + float("inf"), C))):
            with pytest.raises(al.errors.NonFiniteError):
                infer(quantized, *args)


@pytest.mark.parametrize(
    "policy",
    [
        al.Delta.uniform(0.1),
        al.SkipTimesteps(x_share=0.1),
        al.HoldLayers(x_share=0.1),
        al.SplitTime(chunk=64, warm_up=8),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_policies_are_refused(policy: al.Policy) -> None:
    fast = adapted(cell_of(6, 9))
    with pytest.raises(al.errors.PolicyError, match="LSTM cell, which is called for one timestep"):
        fast.policy = policy
    assert fast.policy == al.Dense()
    with pytest.raises(al.errors.InputError, match="a cell is a step already"):
        al.stream(fast)  # type: ignore[arg-type]
    with pytest.raises(al.errors.InputError, match="subclass whose own methods"):
        al.AdaptiveLSTMCell.from_cell(type("Own", (nn.LSTMCell,), {})(2, 3))
    with pytest.raises(al.errors.InputError, match="got LSTM, expected"):
        al.AdaptiveLSTMCell.from_cell(nn.LSTM(2, 3))  # type: ignore[arg-type]
