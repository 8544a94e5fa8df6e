"""``AdaptiveLSTMCell`` is ``nn.LSTMCell``: results, states, dtypes, gradients, and weights that change."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import adaptive_lstm as al
from adaptive_lstm.execution import direct_call
from adaptive_lstm.execution.backend import native
from adaptive_lstm.runtime import lstm as module

from ..support.cells import adapted, cell_of
from ..support.helpers import assert_close, assert_equal, infer, native_only, torch_lstm

direct = pytest.mark.skipif(
    not native() or direct_call._torch() is None, reason="only where torch's tensors can be read natively"
)
SIZES = [(1, 1), (5, 7), (33, 16), (40, 130)]


def as_lstm(cell: nn.LSTMCell, precision: Any) -> al.AdaptiveLSTM:
    """An ``AdaptiveLSTM`` of one layer with the weights of a cell."""
    lstm = torch_lstm(cell.input_size, cell.hidden_size, bias=bool(cell.bias))
    lstm.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    fast.quantize = al.Quantize(precision)
    return fast


def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a call that has to be decided fails."""

    def refuse(*args: Any) -> Any:
        raise AssertionError("decided in Python")

    monkeypatch.setattr(module, "decide", refuse)


def calls(inputs: int, hidden: int) -> dict[str, tuple[Any, ...]]:
    """Arguments of one call each."""
    wide, states = torch.randn(6, 2 * inputs), torch.randn(6, 2 * hidden + 2)
    x, h, c = torch.randn(3, inputs), torch.randn(3, hidden), torch.randn(3, hidden)
    return {
        "no states": (x,),
        "None": (x, None),
        "states": (x, (h, c)),
        "a list": (x, [h, c]),
        "one row": (x[:1], (h[:1], c[:1])),
        "no batch": (x[0],),
        "no batch, states": (x[0], (h[0], c[0])),
        "spread": (wide[::2, ::2], (states[::2, :hidden], states[1::2, hidden : 2 * hidden])),
        "turned": (x.T.contiguous().T, (h.T.contiguous().T, c.T.contiguous().T)),
        "features apart, no batch": (wide[0, ::2],),
        "one state for all": (x, (h[:1].expand(3, -1), c[:1].expand(3, -1))),
        "no rows": (x[:0], (h[:0], c[:0])),
    }


# ------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "hidden"), SIZES)
def test_results_are_those_of_torch(inputs: int, hidden: int, bias: bool) -> None:
    torch.manual_seed(0)
    cell = cell_of(inputs, hidden, bias=bias)
    fast = adapted(cell)
    for _ in range(2):  # the second call is served natively where it can be
        for name, args in calls(inputs, hidden).items():
            got, expected = infer(fast, *args), infer(cell, *args)
            assert type(got) is tuple, name
            assert_close(got, expected, "fp32")
            assert [state.is_contiguous() for state in got] == [True, True], name


@native_only
@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_compressed_steps_are_those_of_an_lstm(precision: str, rows: int) -> None:
    torch.manual_seed(0)
    cell = cell_of(12, 20)
    fast, lstm = adapted(cell, precision), as_lstm(cell, precision)
    size = (rows,) if rows else ()
    states: Any = None
    of_lstm: Any = None
    for _ in range(5):
        x = torch.randn(*size, 12)
        states = infer(fast, x, states)
        _, of_lstm = infer(lstm, x[None], of_lstm)
        assert_equal(states, tuple(state[0] for state in of_lstm))
    with al.stream(lstm, batch_size=max(rows, 1)) as stream:
        y = stream.step(torch.ones(max(rows, 1), 12))
    assert_equal(infer(fast, torch.ones(*size, 12))[0], y if rows else y[0])


@direct
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_calls_go_past_python(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(6, 9)
    fast = adapted(cell, precision)
    infer(fast, torch.zeros(1, 6))
    expected = {name: infer(fast.forward, *args) for name, args in calls(6, 9).items()}
    undecided(monkeypatch)
    torch.manual_seed(0)
    for name, args in calls(6, 9).items():
        if name in ("turned", "features apart, no batch", "no rows"):
            continue  # decided in Python
        fast.__dict__["_last"] = None
        got = infer(fast, *args)
        assert fast.last_run is not None
        assert fast.last_run.timesteps == (3 if got[0].dim() == 2 and "row" not in name else 1)
        assert [s.shape for s in got] == [s.shape for s in expected[name]]


@direct
def test_a_loop_keeps_its_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """No result is written to memory that an earlier one lies in."""
    fast, cell = adapted(cell_of(4, 8)), cell_of(4, 8)
    x = torch.randn(6, 2, 4)
    infer(fast, x[0])
    undecided(monkeypatch)
    kept: list[Any] = [None]
    wanted: list[Any] = [None]
    for step in x:
        kept.append(infer(fast, step, kept[-1]))
        wanted.append(infer(cell, step, wanted[-1]))
    for got, expected in zip(kept[1:], wanted[1:], strict=True):
        assert_close(got, expected, "fp32")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_torchs_own(dtype: torch.dtype) -> None:
    cell = cell_of(6, 9).to(dtype)
    fast = adapted(cell)
    x, h, c = torch.randn(3, 6, dtype=dtype), torch.randn(3, 9, dtype=dtype), torch.randn(3, 9, dtype=dtype)
    assert_equal(infer(fast, x, (h, c)), infer(cell, x, (h, c)))
    fast.quantize = al.Quantize("int8")
    got = infer(fast, x, (h, c))
    assert {state.dtype for state in got} == {dtype}
    for a, b in zip(got, infer(cell, x, (h, c)), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.05)


def test_gradients_and_training_are_torchs_own() -> None:
    cell = cell_of(6, 9)
    for prepare in (nn.Module.eval, nn.Module.train):
        plain, fast = copy.deepcopy(cell), al.adapt(cell)
        for one in (plain, fast):
            prepare(one)
            x = torch.linspace(-1, 1, 12).reshape(2, 6).requires_grad_()
            h, c = one(x)
            h, c = one(x, (h, c))
            (h.sum() + c.square().sum()).backward()
            one.register_buffer("of_input", x.grad)
        assert_equal(fast.of_input, plain.of_input)
        for a, b in zip(fast.parameters(), plain.parameters(), strict=True):
            assert a.grad is not None
            assert b.grad is not None
            assert_equal(a.grad, b.grad)


def test_compressed_and_served_by_torch_is_told_once() -> None:
    fast = adapted(cell_of(6, 9), "int8")
    with pytest.warns(UserWarning, match="gradients needed"):
        fast(torch.zeros(1, 6, requires_grad=True))
    fast(torch.zeros(1, 6, requires_grad=True))
    assert fast.last_run is not None
    assert fast.last_run.route.by == "torch"


# ------------------------------------------------------------------------------------------------------------- weights


def rewritten(cell: nn.LSTMCell) -> None:
    with torch.no_grad():
        cell.weight_hh.mul_(0.5)


def other_parameter(cell: nn.LSTMCell) -> None:
    cell.weight_ih = nn.Parameter(cell.weight_ih.detach() * 2)


def through_data(cell: nn.LSTMCell) -> None:
    cell.weight_ih.data.mul_(0.5)


def loaded(cell: nn.LSTMCell) -> None:
    cell.load_state_dict(cell_of(6, 9, seed=3).state_dict())


def assigned(cell: nn.LSTMCell) -> None:
    cell.load_state_dict(cell_of(6, 9, seed=4).state_dict(), assign=True)


def trained(cell: nn.LSTMCell) -> None:
    cell.train()
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    cell(torch.ones(2, 6))[0].sum().backward()
    optimizer.step()
    cell.eval()


CHANGES: list[Callable[[nn.LSTMCell], None]] = [rewritten, other_parameter, through_data, loaded, assigned, trained]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(change: Callable[[nn.LSTMCell], None]) -> None:
    torch.manual_seed(0)
    cell = cell_of(6, 9)
    fast = adapted(cell)
    args = torch.randn(3, 6), (torch.randn(3, 9), torch.randn(3, 9))
    for _ in range(3):
        assert_close(infer(fast, *args), infer(cell, *args), "fp32")
    before = infer(cell, *args)[0]
    change(cell)
    change(fast)
    assert_close(infer(fast, *args), infer(cell, *args), "fp32")
    assert not torch.equal(before, infer(cell, *args)[0])


def test_a_promise_that_weights_stay() -> None:
    fast = adapted(cell_of(6, 9))
    fast.plan = replace(fast.plan, weights_stay=True)
    x = torch.ones(1, 6)
    before = infer(fast, x)
    fast.weight_ih.data.mul_(2)
    assert_equal(infer(fast, x), before)
    fast.replan()
    assert not torch.equal(infer(fast, x)[0], before[0])


@direct
def test_eval_again_packs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = al.adapt(nn.Sequential(cell_of(6, 9)))
    fast: Any = model[0]
    infer(fast, torch.zeros(1, 6))
    undecided(monkeypatch)
    model.eval()
    infer(fast, torch.zeros(1, 6))


@pytest.mark.parametrize(
    "compute",
    [
        lambda cell: parametrizations.weight_norm(cell, "weight_hh"),
        lambda cell: nn.utils.weight_norm(cell, "weight_ih"),
        lambda cell: prune.l1_unstructured(cell, "weight_hh", 0.3),
    ],
    ids=["parametrization", "hook", "pruning"],
)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_computed_weights(compute: Callable[[nn.LSTMCell], object]) -> None:
    cell = cell_of(6, 9)
    compute(cell)
    fast: Any = al.adapt(nn.Sequential(cell))[0]
    assert isinstance(fast, al.AdaptiveLSTMCell)
    x = torch.randn(3, 6)
    for _ in range(2):
        assert_close(infer(fast, x), infer(cell, x), "fp32")
    for one in (cell, fast):
        with torch.no_grad():
            next(one.parameters()).mul_(1.5)
    assert_close(infer(fast, x), infer(cell, x), "fp32")
    fast.quantize = al.Quantize("int8")
    for a, b in zip(infer(fast, x), infer(cell, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0.0, atol=0.05)
    copied = copy.deepcopy(fast)
    assert_equal(infer(copied, x), infer(fast, x))


def test_hooks_are_called() -> None:
    fast = adapted(cell_of(6, 9))
    x = torch.randn(3, 6)
    infer(fast, x)
    handle = fast.register_forward_hook(lambda module, args, out: (out[0] * 0, out[1]))
    assert not infer(fast, x)[0].any()
    handle.remove()
    assert infer(fast, x)[0].any()
