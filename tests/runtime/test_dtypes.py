"""LSTMs of other dtypes: computed in float32 by the native core, returned in the dtype of the module."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import adaptive_lstm as al
from adaptive_lstm.execution import route

from ..support.helpers import adapted, assert_close, assert_equal, flat, infer, only_lstm, signal, torch_lstm
from ..support.policy_cases import depth_translators, head

INPUT, H, L = 6, 33, 2
LENGTHS = (21, 17, 4)
# Rounding at the border, and what it does to an int8 level or a decision that is close to its edge.
TOLERANCE = {torch.bfloat16: 2**-8, torch.float16: 2**-10, torch.float64: 1e-5}

pytestmark = pytest.mark.skipif(al.backend_info().backend != "native", reason="the reference serves")
EVERY_DTYPE = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def cases() -> list[Any]:
    """Policy, precision, options of nn.LSTM."""
    torch.manual_seed(0)
    stack = al.AdaptiveLSTM(INPUT, H, L).stack_shape
    confident = head(H)
    return [
        pytest.param(al.Dense(), "int8", {}, id="dense int8"),
        pytest.param(al.Dense(), "int8", {"bidirectional": True, "proj_size": 9}, id="both ways, projected"),
        pytest.param(al.Dense(), "bf16", {"bias": False}, id="dense bf16"),
        pytest.param(al.Delta.uniform(0.05), "fp32", {}, id="delta"),
        pytest.param(al.Delta.uniform(0.05), "int8", {}, id="delta int8"),
        pytest.param(al.SkipTimesteps(x_share=0.3), "fp32", {}, id="hold"),
        pytest.param(al.HoldLayers(x_share=0.4, mode="queue_input"), "int8", {}, id="queue"),
        pytest.param(al.ExitInTime(confident, threshold=0.4, check_every=3), "fp32", {}, id="exit in time"),
        pytest.param(
            al.ExitInDepth(translators=depth_translators(stack), head=confident, threshold=0.4), "fp32", {}, id="depth"
        ),
    ]


EVERY_CASE = pytest.mark.parametrize(("policy", "precision", "options"), cases())


def in_dtype(dtype: torch.dtype, policy: al.Policy, precision: str, options: dict[str, Any]) -> al.AdaptiveLSTM:
    return adapted(INPUT, H, L, policy=policy, quantize=precision, **options).to(dtype)


def inputs(lstm: al.AdaptiveLSTM) -> dict[str, tuple[Any, ...]]:
    """Arguments of a call: padded, and packed with given states."""
    shape, dtype = lstm.stack_shape, next(lstm.parameters()).dtype
    x = signal(LENGTHS[0], len(LENGTHS), INPUT, step=0.3).to(dtype)
    packed = pack_sequence([x[:n, b] for b, n in enumerate(LENGTHS)])
    h, c = (
        signal(shape.num_cells, len(LENGTHS), n, seed=1).tanh().to(dtype)
        for n in (shape.output_size, shape.hidden_size)
    )
    return {"padded": (x,), "packed": (packed, (h, c)), "one row": (x[:, 0], (h[:, 0], c[:, 0]))}


def widened(value: Any) -> Any:
    """The same arguments or outputs in float32."""
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.float())
    return value.float() if isinstance(value, torch.Tensor) else tuple(widened(part) for part in value)


@EVERY_DTYPE
@EVERY_CASE
def test_a_call_is_that_of_the_float32_lstm(
    dtype: torch.dtype, policy: al.Policy, precision: str, options: dict[str, Any]
) -> None:
    lstm = in_dtype(dtype, policy, precision, options)
    wide = copy.deepcopy(lstm).float()
    for args in inputs(lstm).values():
        got, want = infer(lstm, *args), infer(wide, *(widened(a) for a in args))
        for a, b in zip(flat(got), flat(want), strict=True):
            assert torch.equal(a, b.to(dtype) if b.is_floating_point() else b)
        assert lstm.last_run is not None
        assert wide.last_run is not None
        name = str(dtype).removeprefix("torch.")
        assert lstm.last_run.route == al.types.Route("native", f"{name} through float32")
        assert lstm.last_run.columns == wide.last_run.columns
        assert lstm.last_run.exits == wide.last_run.exits


@EVERY_DTYPE
@EVERY_CASE
def test_the_reference_gives_the_same(
    dtype: torch.dtype, policy: al.Policy, precision: str, options: dict[str, Any]
) -> None:
    lstm = in_dtype(dtype, policy, precision, options)
    readable = copy.deepcopy(lstm)
    with mock.patch.object(route, "native", return_value=False):
        readable.executor()
    for args in inputs(lstm).values():
        got, want = infer(lstm, *args), infer(readable, *args)
        for a, b in zip(flat(got), flat(want), strict=True):
            assert a.dtype is b.dtype
            near = (a.double() - b.double()).abs() <= TOLERANCE[dtype] * (1 + b.double().abs())
            assert near.double().mean() > 0.99  # a decision on its edge may fall to either side
        assert readable.last_run is not None
        assert readable.last_run.route.by == "reference"


@EVERY_DTYPE
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.05), al.SkipTimesteps(x_share=0.3)])
def test_a_stream_takes_and_gives_the_dtype(dtype: torch.dtype, precision: str, policy: al.Policy) -> None:
    lstm = in_dtype(dtype, policy, precision, {})
    wide = copy.deepcopy(lstm).float()
    x = signal(30, 2, INPUT).to(dtype)
    exact64 = dtype is torch.float64 and precision == "fp32" and isinstance(policy, al.Dense)
    with al.stream(lstm, batch_size=2) as s, al.stream(wide, batch_size=2) as w:
        got = torch.cat([torch.stack([s.step(frame) for frame in x[:11]]), s.run(x[11:])])
        want = torch.cat([torch.stack([w.step(frame) for frame in x[:11].float()]), w.run(x[11:].float())])
        assert got.dtype is dtype
        if exact64:  # nothing is narrowed where nothing is skipped or compressed
            assert_close(got, infer(torch_lstm(INPUT, H, L).double(), x)[0], "fp64")
            assert s.state.h.dtype is torch.float64
            return
        assert torch.equal(got, want.to(dtype))
        assert s.stats.route.by == "native"
        # The state is what is remembered, unrounded: the float32 stream goes on from it in the same way.
        kept = s.state
        assert kept.h.dtype is torch.float32
        s.run(x)
        s.state = w.state = kept
        assert torch.equal(s.run(x), w.run(x.float()).to(dtype))
        with pytest.raises(al.errors.StateError, match=r"expected torch\.float32"):
            s.state = kept.map(lambda t: t.to(torch.float16))
        with pytest.raises(al.errors.InputError, match="like the weights"):
            s.step(x[0].to(torch.float32))


@EVERY_DTYPE
def test_exact_calls_are_torchs(dtype: torch.dtype) -> None:
    lstm, plain = adapted(INPUT, H, L).to(dtype), torch_lstm(INPUT, H, L).to(dtype)
    for args in inputs(lstm).values():
        assert_equal(infer(lstm, *args), infer(plain, *args))
        assert lstm.last_run is not None
        assert lstm.last_run.route == al.types.Route("torch", f"dtype {str(dtype).removeprefix('torch.')}")


@EVERY_DTYPE
@pytest.mark.parametrize("depth", [False, True], ids=["time", "depth"])
def test_a_head_in_python_gets_states_of_its_models_dtype(dtype: torch.dtype, depth: bool) -> None:
    classify = nn.Sequential(nn.Linear(H, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    lstm = adapted(INPUT, H, L)
    lstm.policy = (
        al.ExitInDepth(translators=depth_translators(lstm.stack_shape), head=classify, threshold=0.01)
        if depth
        else al.ExitInTime(lambda states: classify(states), threshold=0.01)
    )
    lstm.to(dtype)
    x = signal(20, 3, INPUT, step=0.3).to(dtype)
    y, (h, c) = infer(lstm, x)
    assert y.dtype is h.dtype is c.dtype is dtype
    assert lstm.last_run is not None
    assert lstm.last_run.exits > 0
    assert lstm.last_run.route.by == ("reference" if depth else "mixed")


@EVERY_DTYPE
def test_a_model_is_compressed_and_keeps_its_dtype(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.LSTM(INPUT, H, L)).to(dtype).eval()
    x = signal(40, 2, INPUT).to(dtype)
    fast = al.adapt(model)
    al.compress(fast, [x], prune=al.Prune("2:4"), quantize=al.Quantize("int8"))
    y, _ = infer(fast, x)
    lstm = only_lstm(fast)
    assert y.dtype is dtype
    assert lstm.last_run is not None
    assert lstm.last_run.route.by == "native"
    # Weights that pruning has refitted are packed as they are, not rounded to the dtype first.
    assert lstm.replaced is not None
    for executed, made in zip(lstm.executed(), lstm.replaced.cells, strict=True):
        assert torch.equal(executed.w_hh, made.w_hh)
    assert (y.float() - infer(model, x)[0].float()).abs().mean() < 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_what_float32_cannot_hold_is_refused(value: float) -> None:
    lstm = adapted(INPUT, H, L, quantize="int8").double()
    x = signal(5, 2, INPUT).double()
    h, c = torch.zeros(L, 2, H).double(), torch.zeros(L, 2, H).double()
    x[2, 1, 3] = c[1, 0, 2] = value
    for args in ((x,), (signal(5, 2, INPUT).double(), (h, c))):
        with pytest.raises(al.errors.NonFiniteError):
            infer(lstm, *args)
    with al.stream(lstm, batch_size=2) as s, pytest.raises(al.errors.NonFiniteError):
        s.step(x[2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64, torch.int64], ids=str)
@pytest.mark.parametrize("name", ["weight_hh_l1", "bias_ih_l0"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_weights_of_several_dtypes_are_refused(name: str, dtype: torch.dtype, precision: str) -> None:
    fast = adapted(INPUT, H, L, quantize=precision)
    setattr(fast, name, nn.Parameter(fast.get_parameter(name).detach().to(dtype), requires_grad=False))
    x = signal(3, 2, INPUT)
    for run in (lambda: infer(fast, x), lambda: al.stream(fast, 2)):
        with pytest.raises(al.errors.InputError, match=f"{name}: got a weight of {dtype}, expected one dtype"):
            run()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.float8_e4m3fn], ids=str)
def test_weights_of_no_dtype_of_an_lstm_are_refused(dtype: torch.dtype) -> None:
    fast = adapted(INPUT, H, L, quantize="int8")
    for name, p in list(fast.named_parameters()):
        setattr(fast, name, nn.Parameter(p.detach().to(dtype), requires_grad=False))
    with pytest.raises(al.errors.InputError, match=f"got a weight of {dtype}, expected one dtype"):
        infer(fast, signal(3, 2, INPUT).to(dtype))
