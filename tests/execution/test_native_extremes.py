"""Values of any size on the native kernels: states beyond 1, huge activations, tiny ones, and denormal numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.execution import reference
from adaptive_lstm.execution.reference_weights import dequantized
from adaptive_lstm.execution.runner import Chunk
from adaptive_lstm.policies import (
    Delta,
    Dense,
    DepthTranslators,
    ExitInDepth,
    HoldLayers,
    Map,
    Policy,
    SkipTimesteps,
    parts,
)
from adaptive_lstm.types import Counts, StackShape, StreamState
from adaptive_lstm.weights.matrices import CellMatrices, Matrix

from ..support.helpers import adapted, always_native, executed_weights, infer_natively
from ..support.native_oracle import (
    ACTIVITIES,
    Activity,
    Format,
    follow,
    policy_of,
    run,
    signal,
    stack,
    states,
    weights,
)
from ..support.policy_cases import depth_translators, head

CPU = torch.device("cpu")
DYNAMIC = al.Quantize("int8", raw="int8", raw_range="dynamic")


def on_reference(
    matrices: list[CellMatrices], shape: StackShape, policy: Policy, x: torch.Tensor, start: StreamState
) -> tuple[torch.Tensor, StreamState, Counts]:
    """x [T, B, I] on the reference executor, in float32; outputs [T, B, D * P]."""
    chunk = Chunk(x.flatten(0, 1), [x.shape[1]] * len(x), start)
    tensors = [dequantized(w, torch.float32, CPU) for w in matrices]
    y, end, counts = reference.run(tensors, shape, parts(policy), chunk)
    return y.reshape(*x.shape[:2], -1), end, counts


# -------------------------------------------------------------------------------------------------- states beyond 1


def given_states() -> dict[str, torch.Tensor]:
    """h_0 [1, 4, 64] of a decoder, as models make it."""
    torch.manual_seed(0)
    encoder = nn.LSTM(16, 64, bidirectional=True).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(4)
        _, (h, _) = encoder(torch.randn(30, 4, 16))
        summed, image = h.sum(0, keepdim=True), nn.Linear(2048, 64)(5 * torch.randn(1, 4, 2048))
    one_unit, one_row = h[:1].clone(), h[:1].clone()
    one_unit[..., 7] = -1e4
    one_row[:, 2] *= 300
    return {"forward": h[:1], "summed": summed, "image": image, "one unit": one_unit, "one row": one_row}


GIVEN = given_states()


@pytest.mark.parametrize("levels", [127, 1016, 8191])
@pytest.mark.parametrize("name", GIVEN)
@torch.no_grad()
def test_a_given_state_is_not_clipped(name: str, levels: int) -> None:
    """Its error is that of weight-only int8, and of a state within -1..1, in proportion."""
    plain, h = nn.LSTM(32, 64).eval(), GIVEN[name]
    x, start = torch.randn(20, 4, 32), (h, torch.zeros_like(h))
    want, fast = plain(x, start)[0], al.AdaptiveLSTM.from_lstm(plain)
    error = {}
    for sent in (levels, 0):
        fast.quantize = al.Quantize("int8", levels=sent)
        error[sent] = (infer_natively(fast, x, start)[0] - want).abs().amax((1, 2))
    largest = h.abs().amax(2).clamp(min=1).max().item()
    assert error[levels][0] <= 2 * error[0][0] + largest * 2 / levels
    assert error[levels][10:].max() <= 2 * error[0][10:].max() + 2 / levels
    fast.quantize = al.Quantize("int8", levels=levels)
    for b in range(4):  # a row does not see that another one has a range of its own
        alone = infer_natively(fast, x[:, b : b + 1], (h[:, b : b + 1], torch.zeros_like(h[:, :1])))[0]
        assert torch.equal(alone, infer_natively(fast, x, start)[0][:, b : b + 1])


@pytest.mark.parametrize("scale", [1.5, 40.0, 1e20])
@pytest.mark.parametrize("levels", [127, 1016, 8191])
@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize("projection", [0, 9])
def test_rows_beyond_one_follow_the_reference(projection: int, activity: Activity, levels: int, scale: float) -> None:
    shape = StackShape(6, 33, 1, projection, bidirectional=True)
    matrices, policy = weights(shape, "fp32", "int8", levels=(127, levels)), policy_of(shape, activity)
    h, c = states(shape, 5)
    h[:, 1::2] *= scale
    x = signal(7, 5, 6, activity)
    got = run(stack(matrices, shape, policy), x, start=(h, c))
    for d, w in enumerate(matrices):
        own = got.y[..., d * shape.output_size : (d + 1) * shape.output_size]
        alone = Delta(h=policy.h[d : d + 1], x=policy.x[d : d + 1]) if isinstance(policy, Delta) else policy  # type: ignore[index]
        end, sent = follow(w, alone, x, own, (h[d], c[d]), d == 1)
        torch.testing.assert_close(got.c[d], end, rtol=1e-5, atol=5e-5)
        assert got.counts[d] == (*sent, 35, 35)


def far_translators(shape: StackShape) -> DepthTranslators:
    """Whose translations are far beyond 1."""
    small = depth_translators(shape)
    steps, finals = (tuple(Map(9 * m.weight, m.bias) for m in maps) for maps in (small.steps, small.finals))
    return DepthTranslators(steps, finals)


HELD: dict[str, Policy] = {
    "gates": SkipTimesteps(x_share=0.5),
    "state": SkipTimesteps(x_share=0.5, mode="hold_state"),
    "by h": SkipTimesteps(x_share=None, h=2.0, mode="hold_state"),
    "layers": HoldLayers(x_share=0.5),
    "queue": HoldLayers(x_share=(0.5, None), mode="queue_input"),
    "delta": Delta.uniform(0.05),
    "delta and layers": al.Combined(Delta.uniform(0.05), HoldLayers(x_share=0.5)),
    "far thresholds": Delta.uniform(3.0),
    "depth": ExitInDepth(translators=far_translators(StackShape(5, 9, 3)), head=head(9), threshold=0.3, level="step"),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("scale", [1.0, 4.0, 1e6])
def test_a_moved_state_of_any_size_goes_on_as_on_the_reference(name: str, scale: float) -> None:
    """Every value that is beyond 1, also one that is held at first or is a translation; step by step."""
    shape, policy = StackShape(5, 9, 3), HELD[name]
    matrices = weights(shape, "int8", "int8")
    native, x = stack(matrices, shape, policy), signal(12, 4, 5, "few")
    state = native.new_state(4)
    run(native, x[:4], state=state, open_ended=True)
    value = native.read(state)
    value.h[:, 1:3] *= scale
    native.write(state, value)
    beyond = 0
    for t in range(4, 12):
        before = native.read(state).map(torch.from_numpy)
        beyond += int((before.h.abs() > 1).sum())
        state.clear_counters()
        got = run(native, x[t : t + 1], state=state, open_ended=True)
        want, end, counts = on_reference(matrices, shape, policy, x[t : t + 1], before)
        torch.testing.assert_close(got.y, want, rtol=1e-4, atol=4e-3)
        torch.testing.assert_close(got.h, end.h, rtol=1e-4, atol=4e-3)
        assert native.counted(state, 4)().columns == counts.columns
    assert bool(beyond) == (scale > 1 or name == "depth")


@torch.no_grad()
def test_a_stream_of_int8_takes_a_state_of_any_size() -> None:
    fast, plain = adapted(5, 33, 2), nn.LSTM(5, 33, 2).eval()
    plain.load_state_dict(fast.state_dict())
    fast.quantize = al.Quantize("int8")
    h, c, x = 5 * torch.randn(2, 3, 33), torch.randn(2, 3, 33), torch.randn(9, 3, 5)
    want, whole = plain(x, (h, c))[0], infer_natively(fast, x, (h, c))[0]
    assert (whole - want).abs().max() < 0.01
    for pieces in ([1] * 9, [4, 5]):
        with al.stream(fast, batch_size=3) as stream:
            stream.state = replace(stream.state, h=h, c=c)
            assert torch.equal(torch.cat([stream.run(piece) for piece in x.split(pieces)]), whole)
    lengths = torch.tensor([9, 6, 2])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
    padded = nn.utils.rnn.pad_packed_sequence(infer_natively(fast, packed, (h, c))[0])[0]
    for b, n in enumerate(lengths.tolist()):
        assert torch.equal(padded[:n, b], whole[:n, b])


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2, 6, 13])
@pytest.mark.parametrize("levels", [64, 127, 1016, 8191])
def test_the_largest_products_do_not_saturate(levels: int, batch: int) -> None:
    """Weights and activations at the ends of their ranges, where no rounding hides what 16 bits cannot hold."""
    lstm = nn.LSTM(64, 40).eval()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight = getattr(lstm, name)
        weight.fill_(127 / 2**16)
        weight[1::4].neg_()
        weight[2::4, ::2].neg_()  # neighbours cancel
        weight[3::4] *= torch.randn_like(weight[3::4]).sign()
    fast = al.AdaptiveLSTM.from_lstm(lstm).eval()
    fast.quantize = al.Quantize("int8", raw="int8", raw_scale=[1.0] * 64, levels=levels, raw_levels=levels)
    for signs in (torch.ones(2, batch, 104), torch.randn(2, batch, 104).sign(), -torch.ones(2, batch, 104)):
        x, h = signs[:1, :, :64], signs[:1, :, 64:].contiguous()
        got, want = infer_natively(fast, x, (h, torch.zeros_like(h))), lstm(x, (h, torch.zeros_like(h)))
        torch.testing.assert_close(got[0], want[0], rtol=0, atol=2e-6)
        torch.testing.assert_close(got[1][1], want[1][1], rtol=0, atol=2e-6)


# ------------------------------------------------------------------------------------------------- huge activations


@pytest.mark.parametrize("huge", [1e20, 1e37, 3.4e38])
@pytest.mark.parametrize(
    ("x_form", "levels", "activity"),
    [
        *(("int8_weight_only", 0, activity) for activity in ACTIVITIES),
        *(("int8_dynamic", levels, "dense") for levels in (127, 64, 1)),
    ],
)
def test_sums_of_integers_do_not_overflow(x_form: Format, levels: int, activity: Activity, huge: float) -> None:
    """Where the products with the weights do not, also with signs that cancel; and a huge value leaves nothing."""
    for width, batch in ((7, 1), (40, 3), (130, 70)):
        shape = StackShape(width, 33, 1)
        matrices, policy = weights(shape, x_form, "fp32", levels=(levels, 0), gain=0.5), policy_of(shape, activity)
        x = signal(9, batch, width, activity)
        x[3, 0] = huge * torch.randn(width).sign() / width
        x[5, :, ::3] = huge / width
        got = run(stack(matrices, shape, policy), x)
        _, (columns, _) = follow(matrices[0], policy, x, got.y, tuple(s[0] for s in states(shape, batch, 0.0)), False)  # type: ignore[arg-type]
        assert got.y.isfinite().all()
        assert got.counts[0][0] == columns


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sums_that_overflow_leave_nothing_behind_under_delta(precision: str) -> None:
    """Beyond float32 a gate is open or shut, as in ``nn.LSTM``; two infinities would leave NaN for good."""
    fast = adapted(8, 16, quantize=precision)
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.mul_(400)
    x = 0.1 * torch.randn(9, 2, 8)
    x[2:5, :, 3] = 5e36 * torch.randn(3, 2)  # one alone: the order in which several are added decides about NaN
    want = infer_natively(fast, x)
    assert want[0].isfinite().all()
    fast.policy = Delta(x=((0.001,) * 8,))
    got = infer_natively(fast, x)
    assert got[0].isfinite().all()
    torch.testing.assert_close(got[0][2:5], want[0][2:5], rtol=0, atol=1e-5)


def test_a_huge_input_gives_what_its_rounded_weights_give() -> None:
    fast = adapted(16, 64)
    for huge in (1e30, 1e38, 3.4e38):
        x = torch.randn(5, 3, 16)
        x[torch.arange(5), :, torch.arange(5)] = huge
        for quantize in (DYNAMIC, replace(DYNAMIC, raw_levels=1), replace(DYNAMIC, levels=0, input_levels=0)):
            for policy in (Dense(), Delta(h=0.0, x=(0.01,))):
                fast.quantize, fast.policy = quantize, policy
                got, start = infer_natively(fast, x)[0], StreamState.start(*states(StackShape(16, 64, 1), 3, 0.0))
                chunk = Chunk(x.flatten(0, 1), [3] * 5, start)
                want = reference.run(executed_weights(fast), StackShape(16, 64, 1), parts(policy), chunk)[0]
                torch.testing.assert_close(got.flatten(0, 1), want, rtol=0, atol=5e-3)


# ------------------------------------------------------------------------------------------------------- tiny values

TINY = torch.cat([sign * 10 ** torch.linspace(-37, 1.8, 2000) for sign in (-1, 1)])


@pytest.mark.parametrize("of", ["i", "f", "g", "o", "tanh of c"])
def test_activations_are_precise_in_relation_to_themselves(of: str) -> None:
    """The decisions of a policy compare shares: a tiny h must not be zero."""
    eye, zeros = Matrix(np.eye(4, dtype=np.float32)), Matrix(np.zeros((4, 1), np.float32))
    native = stack([CellMatrices(eye, zeros, np.zeros(4, np.float32), None)], StackShape(4, 1, 1), Dense())
    x, c = torch.zeros(1, len(TINY), 4), torch.zeros(1, len(TINY), 1)
    column = "ifgo".find(of)
    if column >= 0:
        x[..., column] = TINY
    if of in "ig":
        x[..., 2 - column] = 50.0
    elif of == "f":
        c[:] = 1.0
    elif of == "o":
        x[..., 1], c[:] = 50.0, 50.0
    else:
        x[..., 1], x[..., 3], c[0, :, 0] = 50.0, 50.0, TINY
    got = run(native, x, start=(torch.zeros_like(c), c))
    shown = (got.h if of in ("o", "tanh of c") else got.c).flatten().double()
    want = torch.tanh(TINY.double()) if of in ("g", "tanh of c") else torch.sigmoid(TINY.double())
    assert ((shown - want) / want).abs().max() <= 1e-6


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-12, 1e-20, 1e-26])
@pytest.mark.parametrize("h_form", ["fp32", "int8"])
def test_shares_of_tiny_values_decide_alike(h_form: Format, size: float) -> None:
    shape, policy = StackShape(5, 9, 3), HoldLayers(x_share=0.3)
    matrices = [replace(w, bias=0.0 * w.bias) for w in weights(shape, "fp32", h_form)]
    x = size * signal(60, 3, 5, "few")
    native = stack(matrices, shape, policy)
    state = native.new_state(3)
    for t in range(60):
        before = native.read(state).map(torch.from_numpy)
        got = run(native, x[t : t + 1], state=state)
        want, end, _ = on_reference(matrices, shape, policy, x[t : t + 1], before)
        torch.testing.assert_close(got.y, want, rtol=1e-3, atol=1e-5 * size)
        for a, b in zip(native.read(state).hold, end.hold, strict=True):
            assert np.array_equal(a.run, b.run)  # type: ignore[arg-type]
    columns = state.counters()[0]
    assert 20 < columns[2][2] < 160


@pytest.mark.parametrize("size", [1e-38, 1e-40, 1e-45])
@pytest.mark.parametrize("activity", ACTIVITIES)
@pytest.mark.parametrize("form", ["fp32", "bf16", "int8_weight_only", "int8_per_column"])
def test_denormal_numbers_are_zeros(form: Format, activity: Activity, size: float) -> None:
    shape = StackShape(6, 33, 2)
    matrices, policy = weights(shape, form, "fp32"), policy_of(shape, activity)
    x, start = size * torch.rand(5, 3, 6), states(shape, 3, size)
    got, nothing = run(stack(matrices, shape, policy), x, start=start), run(stack(matrices, shape, policy), 0 * x)
    torch.testing.assert_close(got.y, nothing.y, rtol=0, atol=1e-30)
    want, _, counts = on_reference(matrices, shape, policy, x, StreamState.start(*start))
    torch.testing.assert_close(got.y, want, rtol=0, atol=2e-5)
    if activity != "dense" and form != "int8_per_column":
        sent = [(c.x_sent, c.h_sent) for c in counts.columns]
        assert [row[:2] for row in got.counts] == sent
    assert torch.tensor(1e-40).mul(1.0).item() > 0  # the mode of the thread is what it was


@torch.no_grad()
def test_a_policy_by_share_holds_denormal_inputs() -> None:
    """They are zeros to the native core, and no change to the reference."""
    shape, policy = StackShape(5, 9, 2), SkipTimesteps(x_share=0.1)
    matrices, x = weights(shape, "fp32", "fp32"), 1e-40 * torch.rand(8, 2, 5)
    native = stack(matrices, shape, policy)
    state = native.new_state(2)
    run(native, x, state=state)
    _, _, counts = on_reference(matrices, shape, policy, x, StreamState.start(*states(shape, 2, 0.0)))
    assert native.counted(state, 16)().columns == counts.columns
    assert counts.columns[0].ran == 2
    with always_native():
        fast = adapted(5, 9, policy=Delta(h=None, x=(0.0,)))
        assert fast(x)[0].isfinite().all()
