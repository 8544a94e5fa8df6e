"""Tensors that are not plain memory: torch's own path or a clear error, never wrong values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_sequence

import adaptive_lstm as al

from ..support.helpers import adapted, always_native, assert_close, assert_equal, infer, signal, torch_lstm

X = signal(7, 2, 6)


def negated(x: torch.Tensor) -> torch.Tensor:
    """The same values as x, with torch's lazy negative bit set."""
    out = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert out.is_neg()
    return out


DEPRECATED = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own


@pytest.mark.parametrize("packed", [False, True])
def test_a_negative_bit_is_resolved(packed: bool) -> None:
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    h, c = signal(2, 2, 9).tanh(), signal(2, 2, 9)
    x = pack_sequence([negated(X)[:, 0], negated(X)[:4, 1]]) if packed else negated(X)
    want = pack_sequence([X[:, 0], X[:4, 1]]) if packed else X
    with always_native():
        assert_close(infer(fast, x), infer(lstm, want), "fp32")
        assert_close(infer(fast, x, (negated(h), negated(c))), infer(lstm, want, (h, c)), "fp32")


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_given_states_with_a_negative_bit_or_without_memory(quantize: str) -> None:
    fast, lstm = adapted(6, 9, 2, quantize=quantize), torch_lstm(6, 9, 2)
    h, c = torch.rand(2, 2, 9), torch.rand(2, 2, 9)
    zeros, none = torch.zeros(2, 2, 9), torch._efficientzerotensor((2, 2, 9))
    for given, want in (
        ((torch._neg_view(h), c), (-h, c)),
        ((h, torch._neg_view(c)), (h, -c)),
        ((none, c), (zeros, c)),
    ):
        assert_close(infer(fast, X, given), infer(lstm, X, want), quantize)


def test_a_negative_bit_in_a_stream() -> None:
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    want, _ = infer(lstm, X)
    with al.stream(fast, batch_size=2) as one, al.stream(fast, batch_size=2) as whole, torch.no_grad():
        assert_close(torch.stack([one.step(x) for x in negated(X)]), want, "fp32")
        assert_close(whole.run(negated(X)), want, "fp32")


def outcome(function: Callable[[], torch.Tensor]) -> torch.Tensor | str:
    """What a function returns, or that it refuses."""
    try:
        return function()
    except (RuntimeError, al.errors.UnsupportedError):
        return "refused"


def forward_mode(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The derivative in the direction of another signal."""
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(X, signal(7, 2, 6, seed=3)))).tangent
    assert tangent is not None, "the tangent was lost"
    return torch.as_tensor(tangent)


TRANSFORMS: dict[str, Callable[[Any], torch.Tensor]] = {
    "forward mode": forward_mode,
    "vmap": lambda f: torch.as_tensor(torch.func.vmap(f)(torch.stack([X, 2 * X]))),
    "jvp": lambda f: torch.as_tensor(torch.func.jvp(f, (X,), (X,))[1]),
}


@DEPRECATED
@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # also torch's own
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_torch_func_does_what_it_does_with_nn_lstm(transform: Callable[[Any], torch.Tensor]) -> None:
    fast, lstm = adapted(6, 9, 2, proj_size=4), torch_lstm(6, 9, 2, proj_size=4)  # oneDNN has no derivative of others
    with torch.no_grad(), always_native():
        got, want = (outcome(lambda m=m: transform(lambda x: m(x)[0])) for m in (fast, lstm))  # type: ignore[misc]
    if isinstance(want, str):
        assert got == want
    else:
        assert_close(got, want, "fp32")


@DEPRECATED
@pytest.mark.filterwarnings(
    "ignore:There is a performance drop:UserWarning", "ignore:LSTM with projections:UserWarning"
)
@pytest.mark.parametrize("proj_size", [0, 4])
def test_gradients_by_torch_func(proj_size: int) -> None:
    """Per sample, of inputs and of parameters, and forward: by whichever of torch's two LSTMs can."""
    fast, lstm = adapted(6, 9, 1, proj_size=proj_size), torch_lstm(6, 9, 1, proj_size=proj_size)
    rows = X.transpose(0, 1)

    def loss(module: nn.Module, p: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.func.functional_call(module, p, (x[:, None],))[0].pow(2).sum()
        return out

    want, want_x = [], []
    for row in rows:
        row = row.clone().requires_grad_()
        lstm.zero_grad()
        loss(lstm, dict(lstm.named_parameters()), row).backward()
        want.append({name: torch.as_tensor(p.grad).clone() for name, p in lstm.named_parameters()})
        want_x.append(torch.as_tensor(row.grad))
    given = {name: p.detach() for name, p in fast.named_parameters()}
    over_rows = torch.func.vmap(torch.func.grad(lambda p, x: loss(fast, p, x), argnums=(0, 1)), in_dims=(None, 0))
    if proj_size:  # torch maps no LSTM with projections, its own neither
        with pytest.raises(al.errors.UnsupportedError, match=r"torch\.func cannot transform"):
            over_rows(given, rows)
    else:
        got, got_x = over_rows(given, rows)
        assert_close(got_x, torch.stack(want_x), "fp32")
        for name, found in got.items():
            assert_close(found, torch.stack([one[name] for one in want]), "fp32")
    forward = torch.func.jacfwd(lambda x: loss(fast, given, x))(rows[0])
    assert_close(forward, want_x[0], "fp32")


def test_fake_and_zero_tensors() -> None:
    fast = adapted(6, 9, 2)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        y, _ = fast(mode.from_tensor(X))
        assert y.shape == (7, 2, 9)
    zero = torch._efficientzerotensor((7, 2, 6))
    with always_native():
        assert_close(infer(fast, zero), infer(torch_lstm(6, 9, 2), torch.zeros(7, 2, 6)), "fp32")


def test_make_fx_sees_the_computation() -> None:
    fast = adapted(6, 9, 2)
    with torch.no_grad():
        graph = make_fx(lambda x: fast(x)[0])(X)
        assert_close(graph(2 * X), infer(fast, 2 * X)[0], "fp32")


def traced(step: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.jit.trace(step, X[0], check_trace=False)


def recorded(step: Callable[[torch.Tensor], torch.Tensor]) -> None:
    make_fx(lambda x: step(x))(X[0])


def mapped(step: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.func.vmap(step)(X)


@DEPRECATED
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("use", [traced, recorded, mapped])
def test_a_stream_refuses_to_be_traced_and_goes_on(use: Callable[[Any], None]) -> None:
    with al.stream(adapted(6, 9, 2), batch_size=2) as stream, torch.no_grad():
        first = stream.step(X[0])
        before = stream.state
        with pytest.raises(al.errors.InputError, match="expected plain memory"):
            use(stream.step)
        assert torch.equal(stream.state.h, before.h)
        stream.reset()
        assert torch.equal(stream.step(X[0]), first)


@pytest.mark.parametrize("of", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn])
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
def test_a_stream_refuses_other_layouts(of: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with al.stream(adapted(6, 9, 2), batch_size=2) as stream:
        with pytest.raises(al.errors.InputError, match="of layout"):
            stream.step(of(X[0]))
        assert not stream.state.h.any()


def freed(x: torch.Tensor) -> torch.Tensor:
    """A tensor without the memory that its values were in; most operations of torch would read it all the same."""
    out = x.clone()
    out.untyped_storage().resize_(0)
    return out


ASK: dict[str, Callable[[al.AdaptiveLSTM, Any], Any]] = {
    "a call": lambda lstm, lost: lstm(lost(X)),
    "h_0": lambda lstm, lost: lstm(X, (lost(torch.ones(2, 2, 9)), torch.zeros(2, 2, 9))),
    "c_0": lambda lstm, lost: lstm(X, (torch.zeros(2, 2, 9), lost(torch.ones(2, 2, 9)))),
    "both": lambda lstm, lost: lstm(X, (lost(torch.ones(2, 2, 9)), lost(torch.ones(2, 2, 9)))),
    "a step": lambda lstm, lost: al.stream(lstm, 2).step(lost(X[0])),
    "chosen rows": lambda lstm, lost: al.stream(lstm, 2).step(lost(X[0]), rows=[1, 0]),
    "a chunk": lambda lstm, lost: al.stream(lstm, 2).run(lost(X)),
    "a pool": lambda lstm, lost: pushed(lstm, lost(X[0, 0])),
    "a state": lambda lstm, lost: assigned(lstm, lost),
}


def pushed(lstm: al.AdaptiveLSTM, x: torch.Tensor) -> None:
    pool = al.StreamPool(lstm, capacity=1)
    pool.push(pool.open(), x)


def assigned(lstm: al.AdaptiveLSTM, lost: Callable[[torch.Tensor], torch.Tensor]) -> None:
    stream = al.stream(lstm, 2)
    stream.state = replace(stream.state, h=lost(stream.state.h))


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("ask", ASK)
def test_memory_that_was_freed_is_not_read(ask: str, quantize: str) -> None:
    fast = adapted(6, 9, 2, quantize=quantize)
    for _ in range(2):
        infer(fast, X)  # the second is served directly
        with torch.no_grad(), pytest.raises(al.AdaptiveLSTMError, match="memory was freed"):
            ASK[ask](fast, freed)


@pytest.mark.parametrize("ask", ["chosen rows", "a chunk", "a state"])
def test_memory_of_which_a_part_was_freed_is_not_read(ask: str) -> None:
    def cut(x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        out.untyped_storage().resize_(8)
        return out

    with pytest.raises(al.AdaptiveLSTMError, match="memory was freed"):
        ASK[ask](adapted(6, 9, 2), cut)


@pytest.mark.parametrize("lazy", [torch.nn.UninitializedParameter, torch.nn.parameter.UninitializedBuffer])
@pytest.mark.parametrize("ask", ASK)
def test_tensors_without_values_are_refused(ask: str, lazy: Callable[[], torch.Tensor]) -> None:
    with torch.no_grad(), pytest.raises(al.AdaptiveLSTMError, match="has no values yet"):
        ASK[ask](adapted(6, 9, 2), lambda x: lazy())


@pytest.mark.parametrize("data", [None, [[0.0] * 6] * 3, X[0].numpy(), "data"])
def test_packed_sequences_of_no_tensors_are_refused(data: Any) -> None:
    packed = torch.nn.utils.rnn.PackedSequence(data, torch.tensor([1, 1, 1]))
    with torch.no_grad(), pytest.raises(al.errors.InputError, match="PackedSequence with data of type"):
        adapted(6, 9, 2)(packed)


def test_weights_that_were_freed_are_not_read() -> None:
    fast = adapted(6, 9, 2)
    want = infer(fast, X)
    weight = fast.get_parameter("weight_hh_l1")
    kept, memory = weight.detach().clone(), weight.untyped_storage()
    size = memory.size()
    memory.resize_(0)
    for use in (lambda: infer(fast, X), lambda: al.report(fast), lambda: al.stream(fast), fast.executed):
        with pytest.raises(al.errors.InputError, match="weight_hh_l1: got a weight whose memory was freed"):
            use()
    memory.resize_(size)
    with torch.no_grad():
        weight.copy_(kept)
    assert_equal(infer(fast, X), want)


@pytest.mark.parametrize("ask", ASK)
def test_functionalized_tensors(ask: str) -> None:
    """torch computes with what is behind them where it can; they have no address."""
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    try:
        with torch.no_grad():
            got, *_ = ASK[ask](fast, torch._to_functional_tensor)
            want, *_ = ASK[ask](lstm, torch._to_functional_tensor)  # type: ignore[arg-type]
    except al.errors.AdaptiveLSTMError as error:
        assert "plain memory" in str(error)  # noqa: PT017 (either is right)
    else:
        assert_close(torch._from_functional_tensor(got), torch._from_functional_tensor(want), "fp32")
