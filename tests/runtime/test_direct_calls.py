"""Calls that one native entry serves: the same as decided calls, and only where nothing is left to decide.

``cold`` makes its first call, which is always decided; ``warm`` has made one before.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.utils.rnn import pack_sequence

import adaptive_lstm as al
from adaptive_lstm.execution import direct_call
from adaptive_lstm.execution.backend import native
from adaptive_lstm.runtime import lstm as module

from ..support.helpers import adapted, assert_close, assert_equal, infer, signal, torch_lstm

pytestmark = pytest.mark.skipif(
    not native() or direct_call._torch() is None, reason="only where torch's tensors can be read natively"
)

Make = Callable[[], al.AdaptiveLSTM]


def undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, a call that has to be decided fails."""

    def refuse(*args: Any) -> Any:
        raise AssertionError("decided in Python")

    monkeypatch.setattr(module, "decide", refuse)


def pruned(batch_first: bool = False) -> al.AdaptiveLSTM:
    fast = adapted(6, 9, 2, batch_first=batch_first)
    al.compress(fast, [signal(7, 2, 6)], prune=al.Prune("unit", 0.25), quantize=al.Quantize("int8"))
    return fast


LSTMS: dict[str, Make] = {
    "exact": lambda: adapted(6, 9, 2),
    "batch first": lambda: adapted(6, 9, 2, batch_first=True),
    "no bias, projected": lambda: adapted(6, 9, 2, proj_size=4, bias=False),
    "bidirectional int8": lambda: adapted(6, 9, 2, bidirectional=True, quantize="int8", batch_first=True),
    "bf16": lambda: adapted(6, 9, quantize="bf16"),
    "one input": lambda: adapted(1, 16, quantize="int8"),
    "pruned": pruned,
    "hold": lambda: adapted(6, 9, 2, policy=al.HoldLayers(x_share=0.1)),
    "delta": lambda: adapted(6, 9, 2, policy=al.Delta.uniform(0.05), quantize="int8"),
}


def inputs(lstm: nn.LSTM) -> dict[str, torch.Tensor]:
    """Inputs of one row, of several, without a batch, and spread over a larger tensor."""
    n = lstm.input_size

    def rows(b: int, t: int) -> tuple[int, int, int]:
        return (b, t, n) if lstm.batch_first else (t, b, n)

    wide = torch.randn(2 * 3, 2 * 5, n + 2)
    return {
        "one step": torch.randn(rows(1, 1)),
        "one row": torch.randn(rows(1, 7)),
        "three rows": torch.randn(rows(3, 5)),
        "no batch": torch.randn(4, n),
        "spread": wide[::2, ::2, 1 : n + 1],
        "turned": torch.randn(5, 3, n).transpose(0, 1),
        "features apart": torch.randn(3, n, 5).transpose(1, 2),
        "features and rows apart": torch.randn(n, 3, 5).permute(2, 1, 0)[::2],
        "no batch, features apart": torch.randn(n, 4).T,
        "parameter": nn.Parameter(torch.randn(rows(1, 2)), requires_grad=False),
    }


def states(lstm: al.AdaptiveLSTM, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Given states for x, h as every second cell of a larger tensor."""
    shape = lstm.stack_shape
    rows = () if x.dim() == 2 else (x.shape[0 if lstm.batch_first else 1],)
    h = torch.rand(2 * shape.num_cells, *rows, shape.output_size)[::2]
    return h, torch.randn(shape.num_cells, *rows, shape.hidden_size)


@pytest.mark.parametrize("name", LSTMS)
def test_the_same_as_decided_calls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warm, wanted = LSTMS[name](), []
    given = warm.executor().skips_over_time
    calls: list[tuple[Any, ...]] = [(x,) for x in inputs(warm).values()]
    calls += [] if given else [(x, states(warm, x)) for x in inputs(warm).values()]
    for call in calls:
        cold = copy.deepcopy(warm)
        wanted.append((infer(cold, *call), cold.last_run))
    infer(warm, calls[0][0])
    undecided(monkeypatch)
    for call, (want, run) in zip(calls, wanted, strict=True):
        got = infer(warm, *call)
        assert_equal(got, want)
        assert warm.last_run == run
        assert [t.stride() for t in (got[0], *got[1])] == [t.stride() for t in (want[0], *want[1])]


def test_results_are_new_tensors_like_any_other() -> None:
    fast = adapted(6, 9)
    x = torch.randn(1, 1, 6)
    first, (h, c) = infer(fast, x)
    kept = first.clone(), h.clone(), c.clone()
    second, (other, _) = infer(fast, 2 * x)
    infer(fast, 3 * x)
    assert_equal((first, (h, c)), kept)
    assert len({t.data_ptr() for t in (first, second, h, other)}) == 4
    second.resize_(100)
    with torch.inference_mode():
        assert all(t.is_inference() for t in infer(fast, x)[1])
    assert not infer(fast, x)[0].is_inference()


def test_a_recurrent_loop_of_given_states() -> None:
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    x, ours, theirs = torch.randn(8, 1, 6), None, None
    for t in range(len(x)):
        y, ours = infer(fast, x[t : t + 1], ours)
        want, theirs = infer(lstm, x[t : t + 1], theirs if theirs is None else list(theirs))
        assert_close((y, ours), (want, theirs), "fp32")


def under(context: Callable[[], Any], call: Callable[[nn.LSTM], Any]) -> Callable[[nn.LSTM], Any]:
    def run(lstm: nn.LSTM) -> Any:
        with context():
            return call(lstm)

    return run


X = signal(3, 1, 6)
NAN = torch.full((1, 1, 6), float("nan"))


def _faked(lstm: nn.LSTM) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return lstm(mode.from_tensor(X))[0].shape


def _dual(lstm: nn.LSTM) -> Any:
    with forward_ad.dual_level():
        y, _ = lstm(forward_ad.make_dual(X, torch.ones_like(X)))
        return forward_ad.unpack_dual(y).tangent


def _hooked(lstm: nn.LSTM) -> Any:
    seen: list[Any] = []
    handle = lstm.register_forward_hook(lambda module, args, out: seen.append(out[0]))
    y, _ = lstm(X)
    handle.remove()
    assert seen[0] is y
    return y


def _hooked_before(lstm: nn.LSTM) -> Any:
    handle = lstm.register_forward_pre_hook(lambda module, args: (2 * args[0], *args[1:]))
    out = lstm(X), lstm(X, None)
    handle.remove()
    return out


def _hooked_everywhere(lstm: nn.LSTM) -> Any:
    hook: Any = lambda module, args, out: (out[0] + 1, out[1])  # noqa: E731 (typed as torch's hooks are not)
    handle = nn.modules.module.register_module_forward_hook(hook)
    out = lstm(X)
    handle.remove()
    return out


def _another_forward(lstm: nn.LSTM) -> Any:
    forward = lstm.forward
    lstm.forward = lambda x: forward(x)[0]  # type: ignore[method-assign, assignment]
    out = lstm(X)
    del lstm.forward
    return out


def _patched(lstm: nn.LSTM) -> Any:
    with mock.patch.object(type(lstm), "forward", lambda self, x: x):
        return lstm(X)


def _traced_constant(lstm: nn.LSTM) -> Any:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: torch.Tensor) -> Any:
            return x + self.lstm(X)[0]

    return str(torch.fx.symbolic_trace(Around()).graph)


def _compiled(lstm: nn.LSTM) -> Any:
    lstm._compiled_call_impl = lambda x: x
    out = lstm(X)
    lstm._compiled_call_impl = None
    return out


def _trained(lstm: nn.LSTM) -> Any:
    y, _ = lstm.train()(X)
    lstm.eval()
    return y.requires_grad, y


SITUATIONS: dict[str, Callable[[nn.LSTM], Any]] = {
    "gradients of weights": under(torch.enable_grad, lambda lstm: lstm(X)[0].requires_grad),
    "gradients of x": under(torch.enable_grad, lambda lstm: lstm(X.clone().requires_grad_())[0].requires_grad),
    "gradients of h_0": under(
        torch.enable_grad, lambda lstm: lstm(X, (torch.zeros(2, 1, 9, requires_grad=True), torch.zeros(2, 1, 9)))[0]
    ),
    "training": _trained,
    "autocast": under(lambda: torch.autocast("cpu", torch.bfloat16), lambda lstm: lstm(X)),
    "torch.jit.trace": lambda lstm: torch.jit.trace(lstm, X)(X),
    "jvp": lambda lstm: torch.func.jvp(lambda x: lstm(x)[0], (X,), (torch.ones_like(X),)),
    "vmap": lambda lstm: torch.vmap(lambda x: lstm(x)[0])(X[None]),
    "forward mode": _dual,
    "fake": _faked,
    "hooks": _hooked,
    "hooks before": _hooked_before,
    "hooks everywhere": _hooked_everywhere,
    "another forward": _another_forward,
    "a patched class": _patched,
    "torch.fx": _traced_constant,
    "compiled by itself": _compiled,
    "by name": lambda lstm: lstm(input=X),
    "states by name": lambda lstm: lstm(X, hx=None),
    "no arguments": lambda lstm: lstm(),
    "too many arguments": lambda lstm: lstm(X, None, None),
    "negated lazily": lambda lstm: lstm(torch._neg_view(X)),
    "zeros without memory": lambda lstm: lstm(torch._efficientzerotensor(X.shape)),
    "negated state": lambda lstm: lstm(X, (torch.zeros(2, 1, 9), torch._neg_view(torch.ones(2, 1, 9)))),
    "features apart": lambda lstm: lstm(torch.stack([X, X], -1)[..., 0]),
    "expanded": lambda lstm: lstm(X[:1].expand(5, 1, 6)),
    "sparse": lambda lstm: lstm(X.to_sparse()),
    "float64": lambda lstm: lstm(X.double()),
    "float64 state": lambda lstm: lstm(X, (torch.zeros(2, 1, 9).double(), torch.zeros(2, 1, 9))),
    "packed": lambda lstm: lstm(pack_sequence([X[:, 0], X[:2, 0]])),
    "empty": lambda lstm: lstm(X[:0]),
    "no rows": lambda lstm: lstm(X[:, :0]),
    "one dimension": lambda lstm: lstm(X[0, 0]),
    "four dimensions": lambda lstm: lstm(X[None]),
    "other features": lambda lstm: lstm(X[..., :5]),
    "no tensor": lambda lstm: lstm([1.0]),
    "nothing": lambda lstm: lstm(None),
    "NaN": lambda lstm: lstm(NAN),
    "NaN in a state": lambda lstm: lstm(X, (torch.zeros(2, 1, 9), NAN[0, 0, 0].expand(2, 1, 9))),
    "one state": lambda lstm: lstm(X, (torch.zeros(2, 1, 9),)),
    "states of another batch": lambda lstm: lstm(X, (torch.zeros(2, 3, 9), torch.zeros(2, 3, 9))),
    "states without a batch": lambda lstm: lstm(X, (torch.zeros(2, 9), torch.zeros(2, 9))),
    "states of another stack": lambda lstm: lstm(X, (torch.zeros(1, 1, 9), torch.zeros(1, 1, 9))),
    "a tensor for states": lambda lstm: lstm(X, torch.zeros(2, 1, 9)),
}  # fmt: skip


def outcome(lstm: al.AdaptiveLSTM, call: Callable[[nn.LSTM], Any]) -> tuple[Any, Any]:
    """What a call gives: results and route, or the error."""
    try:
        with torch.no_grad():
            out = call(lstm)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is compared)
        return None, (type(error), str(error))
    return out, lstm.last_run


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:adaptive_lstm", "ignore::DeprecationWarning")
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_whatever_must_be_decided_is(name: str, quantize: str) -> None:
    warm = adapted(6, 9, 2, quantize=quantize)
    cold = copy.deepcopy(warm)
    for _ in range(2):
        infer(warm, X)
    want, told = outcome(cold, SITUATIONS[name])
    got, also = outcome(warm, SITUATIONS[name])
    assert also == told or told is None  # None: the LSTM was not reached
    if isinstance(want, tuple | torch.Tensor) and not isinstance(want, torch.Size):
        torch.testing.assert_close(got, want, rtol=0.0, atol=0.0, equal_nan=True)
    else:
        assert got == want


def test_a_foreign_parameter_that_wants_gradients_is_seen() -> None:
    fast = adapted(6, 9).requires_grad_(False)

    def served_by() -> str:
        fast(X)
        assert fast.last_run is not None
        return fast.last_run.route.by

    assert served_by() == "native"
    fast.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert served_by() == "torch"


def test_without_gradients_in_the_weights_grad_mode_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = adapted(6, 9).requires_grad_(False)
    want = fast(X)
    undecided(monkeypatch)
    assert_equal(fast(X), want)
    with pytest.raises(AssertionError, match="decided"):
        fast.requires_grad_(True)(X)


def test_a_large_batch_and_several_threads_are_left_to_the_race(monkeypatch: pytest.MonkeyPatch, races: None) -> None:
    fast, long = adapted(6, 200), torch.randn(64, 1, 6)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        infer(fast, long)
        undecided(monkeypatch)
        infer(fast, long)
        with pytest.raises(AssertionError, match="decided"):
            infer(fast, torch.randn(64, 8, 6))
        torch.set_num_threads(2)
        with pytest.raises(AssertionError, match="decided"):
            infer(fast, long)
    finally:
        torch.set_num_threads(threads)


def test_a_torch_whose_tensors_only_python_reads_is_served_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_call, "_torch", lambda: None)
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    for _ in range(2):
        assert_close(infer(fast, X), infer(lstm, X), "fp32")
    undecided(monkeypatch)
    with pytest.raises(AssertionError, match="decided"):
        infer(fast, X)


def test_threads_share_a_module() -> None:
    fast = adapted(6, 64, 2, quantize="int8")
    xs = [torch.randn(20, 1, 6) for _ in range(4)]
    want = [infer(fast, x) for x in xs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(200):
            y, _ = infer(fast, xs[i])
            if not torch.equal(y, want[i][0]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
