"""A whole batch in blocks of rows: the bits of its blocks run alone, in the memory of one block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

import adaptive_lstm as al
from adaptive_lstm.execution.native_stack import MOST_IDLE, MOST_IDLE_BYTES, NativeStack
from adaptive_lstm.types import StackShape

from ..support.helpers import adapted, assert_close, assert_equal, infer, infer_natively, signal, torch_lstm
from ..support.policy_cases import FAMILIES
from ..support.whole_batches import Ran, forward, stack_of

pytestmark = [
    pytest.mark.skipif(al.backend_info().backend != "native", reason="the native core does not run"),
    pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning"),  # torch's own
]

T, B = 13, 11
# With blocks of 4, one ends early, one is cut in the middle, and of one a single row goes on.
SIZES = [11] * 3 + [9] * 3 + [7] * 3 + [2] * 4


def alone(native: NativeStack, x: torch.Tensor, sizes: Sequence[int] | None, given: Any, first: int, n: int) -> Ran:
    """Some of the rows, as a batch of their own."""
    part = tuple(state[:, first : first + n] for state in given)
    if sizes is None:
        return forward(native, x[first : first + n], None, part, n)
    own = [min(max(size - first, 0), n) for size in sizes]
    rows = [r[first : first + k] for r, k in zip(x.split(list(sizes)), own, strict=True)]
    return forward(native, torch.cat(rows), [k for k in own if k], part, n)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("shape", "policy", "_streams"), FAMILIES)
def test_blocks_are_batches_of_their_own(
    shape: StackShape, policy: al.Policy, _streams: bool, packed: bool, precision: str
) -> None:
    native = stack_of(shape, policy, precision)
    x = signal(T, B, shape.input_size, step=0.4).transpose(0, 1)
    sizes = SIZES if packed else None
    if packed:
        x = torch.cat([x[:n, t] for t, n in enumerate(SIZES)])
    given = (
        signal(B, shape.num_cells, shape.output_size, seed=1).transpose(0, 1).tanh(),  # rows that lie apart
        signal(B, shape.num_cells, shape.hidden_size, seed=2).transpose(0, 1),
    )
    got = forward(native, x, sizes, given, 4)
    blocks = [alone(native, x, sizes, given, first, min(4, B - first)) for first in range(0, B, 4)]
    assert torch.equal(got.h, torch.cat([b.h for b in blocks], dim=1))
    assert torch.equal(got.c, torch.cat([b.c for b in blocks], dim=1))
    if sizes is None:
        want = torch.cat([b.y for b in blocks])
    else:
        lengths = [sum(4 * i < n for n in sizes) for i in range(len(blocks))]
        own = [b.y.split([min(max(n - 4 * i, 0), 4) for n in sizes[: lengths[i]]]) for i, b in enumerate(blocks)]
        want = torch.cat([own[i][t] for t in range(T) for i in range(len(blocks)) if t < lengths[i]])
    assert torch.equal(got.y, want)
    assert (got.counts == sum(b.counts for b in blocks)).all()
    assert got.exits == tuple(map(sum, zip(*(b.exits for b in blocks), strict=True)))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "batch_first": True}, {"proj_size": 5}])
@pytest.mark.parametrize(("packed", "rows"), [(False, 300), (True, 300), (True, 129)])
def test_many_rows_are_those_of_torch(options: dict[str, Any], packed: bool, rows: int) -> None:
    fast, lstm = adapted(6, 9, 2, **options), torch_lstm(6, 9, 2, **options)
    x: Any = torch.randn(*((rows, 20) if options.get("batch_first") else (20, rows)), 6)
    if packed:
        lengths = torch.randint(2, 21, (rows,))
        x = pack_padded_sequence(x, lengths, batch_first=options.get("batch_first", False), enforce_sorted=False)
    want, (h, c) = infer(lstm, x)
    assert_close(infer_natively(fast, x), (want, (h, c)), "fp32")
    states = h.flip(1), c.flip(1)
    assert_close(infer_natively(fast, x, states), infer(lstm, x, states), "fp32")


@pytest.mark.parametrize("given", [False, True])
def test_what_is_not_finite_in_the_last_row_is_refused(given: bool) -> None:
    fast = adapted(6, 9, 2, quantize="int8")
    x, h, c = torch.randn(5, 300, 6), torch.zeros(2, 300, 9), torch.zeros(2, 300, 9)
    want = infer_natively(fast, x, (h, c))
    ran = fast.last_run
    bad, state = x.clone(), c.clone()
    (state if given else bad)[1, 299, 5] = float("inf")
    with pytest.raises(al.errors.NonFiniteError):
        infer(fast, *((x, (h, state)) if given else (bad,)))
    assert fast.last_run == ran
    assert_equal(infer_natively(fast, x, (h, c)), want)


def test_states_may_lie_anywhere() -> None:
    fast = adapted(6, 9, 2, quantize="int8")
    x, h, c = torch.randn(5, 3, 6), torch.randn(2, 3, 9).tanh(), torch.randn(2, 3, 9)
    want = infer_natively(fast, x, (h, c))
    apart = torch.cat([h, h], dim=2)[..., :9], torch.cat([c, c], dim=2)[..., :9]
    cells_last = tuple(s.permute(1, 2, 0).contiguous().permute(2, 0, 1) for s in (h, c))
    for given in (apart, cells_last, (apart[0], c)):
        assert_equal(infer_natively(fast, x, given), want)
    one = h[:, :1].expand(2, 3, 9), c[:, :1].expand(2, 3, 9)
    assert_equal(infer_natively(fast, x, one), infer_natively(fast, x, tuple(s.contiguous() for s in one)))


@pytest.mark.parametrize("policy", [al.Dense(), al.Delta.uniform(0.1), al.HoldLayers(x_share=0.2, mode="queue_input")])
def test_memory_is_that_of_a_block(policy: al.Policy) -> None:
    fast = adapted(6, 33, 2, policy=policy, quantize="int8")
    native = fast.executor().native
    assert native is not None

    def kept(rows: int) -> int:
        infer_natively(fast, torch.randn(20, rows, 6))
        (state,) = native._idle
        return state.bytes

    small = kept(3)
    block = kept(128)
    assert small < block == kept(4000)
    assert block < MOST_IDLE_BYTES


def test_large_states_are_not_kept_and_few_are() -> None:
    fast = adapted(6, 300, 2, quantize="int8")
    native = fast.executor().native
    assert native is not None
    infer_natively(fast, torch.randn(5, 2, 6))
    assert len(native._idle) == 1
    infer_natively(fast, torch.randn(1000, 32, 6))  # outputs between the layers: more than MOST_IDLE_BYTES
    assert len(native._idle) == 0
    for state in [native.new_state(1) for _ in range(MOST_IDLE + 3)]:
        native.release(state)
    assert len(native._idle) == MOST_IDLE
