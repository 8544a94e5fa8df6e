"""PackedSequences put together by hand: torch's values, or one clear error before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import adaptive_lstm as al

from ..support.helpers import adapted, assert_close, infer, infer_natively, torch_lstm

SIZES = torch.tensor([3, 2, 1])
DATA = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
GIVEN = torch.zeros(1, 3, 8), torch.zeros(1, 3, 8)


def packed(sizes: Any = SIZES, in_order: Any = None, back: Any = None, data: torch.Tensor = DATA) -> PackedSequence:
    """As a careless caller makes one: nothing is derived from anything."""
    return tuple.__new__(PackedSequence, (data, sizes, in_order, back))


def whole(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


INDICES = {
    "too short": whole(1),
    "a slice": whole(2, 0),
    "too long": whole(0, 1, 2, 0, 1),
    "none": whole(),
    "negative": whole(0, -1, 2),
    "all negative": whole(-1, -2, -3),
    "twice": whole(0, 1, 1),
    "beyond the rows": whole(0, 1, 3),
    "far beyond": whole(0, 1, 2**62),
    "int32": whole(0, 1, 2).int(),
    "floats": torch.tensor([0.0, 1.0, 2.0]),
    "bools": torch.tensor([True, False, True]),
    "a matrix": whole(0, 1, 2)[None],
    "a number": torch.tensor(0),
    "on no device": whole(0, 1, 2).to("meta"),
    "a list": [0, 1, 2],
    "zeros without memory": torch._efficientzerotensor((3,), dtype=torch.int64),
}
BATCH_SIZES = {
    "grown": whole(1, 2, 3),
    "grown once": whole(3, 1, 2),
    "too few": whole(3, 2),
    "too many": whole(3, 2, 1, 1),
    "none": whole(),
    "zero at the end": whole(3, 3, 0),
    "negative": whole(5, 2, -1),
    "an overflowing sum": whole(2**62, 2**62, 2**62, 2**62),
    "int32": SIZES.int(),
    "floats": SIZES.float(),
    "a matrix": SIZES[None],
    "a number": torch.tensor(6),
    "on no device": SIZES.to("meta"),
    "zeros without memory": torch._efficientzerotensor((3,), dtype=torch.int64),
    "a list": [3, 2, 1],
}
BAD = {f"sorted_indices {name}": packed(in_order=v) for name, v in INDICES.items()}
BAD |= {f"unsorted_indices {name}": packed(back=v) for name, v in INDICES.items()}
BAD |= {f"{name} beside good ones": packed(in_order=v, back=whole(0, 1, 2)) for name, v in INDICES.items()}
BAD |= {"not inverse": packed(in_order=whole(1, 2, 0), back=whole(1, 2, 0))}
BAD |= {"both the same cycle of another length": packed(in_order=whole(0, 2, 1), back=whole(2, 1, 0))}
BAD |= {f"batch_sizes {name}": packed(sizes=v) for name, v in BATCH_SIZES.items()}
BAD |= {"data flat": packed(data=DATA[:, 0]), "data deep": packed(data=DATA[None])}


@pytest.mark.parametrize("hx", [None, GIVEN], ids=["zeros", "given"])
@pytest.mark.parametrize("quantize", ["fp32", "int8"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_refused(bad: PackedSequence, quantize: str, hx: Any) -> None:
    fast = adapted(4, 8, quantize=quantize)
    with pytest.raises(al.errors.InputError, match=r"PackedSequence.*expected"):
        infer(fast, bad, *([] if hx is None else [hx]))
    assert fast.last_run is None


@pytest.mark.parametrize(
    "hx",
    [
        (torch.zeros(1, 4, 8), torch.zeros(1, 4, 8)),
        (torch.zeros(2, 3, 8), torch.zeros(2, 3, 8)),
        (torch.ones(1, 3, 8, dtype=torch.int16),) * 2,
    ],
    ids=["batch", "layers", "dtype"],
)
def test_states_that_do_not_fit(hx: Any) -> None:
    with pytest.raises(al.errors.InputError, match="h_0: got"):
        infer(adapted(4, 8), packed(), hx)


@pytest.mark.parametrize("given", [False, True])
def test_good_ones_are_torchs(given: bool) -> None:
    fast, lstm = adapted(4, 8), torch_lstm(4, 8)
    h, c = torch.randn(1, 3, 8), torch.randn(1, 3, 8)
    rows = [torch.randn(n, 4) for n in (2, 5, 3)]
    for good in (
        packed(),
        PackedSequence(DATA, SIZES, whole(2, 0, 1)),
        packed(back=whole(1, 2, 0)),
        pack_sequence(rows, enforce_sorted=False),
    ):
        args = (good, (h, c)) if given else (good,)
        assert_close(infer_natively(fast, *args), infer(lstm, *args), "fp32")


@pytest.mark.parametrize("quantize", ["fp32", "int8"])
def test_zeros_without_memory_are_indices(quantize: str) -> None:
    """torch makes them of gradients that are zero; nothing lies at their address."""
    fast, zero = adapted(4, 8, quantize=quantize), torch._efficientzerotensor((1,), dtype=torch.int64)
    want = infer(fast, packed(whole(1, 1, 1, 1, 1, 1)))
    for in_order, back in ((zero, None), (None, zero), (zero, zero)):
        got = infer(fast, packed(whole(1, 1, 1, 1, 1, 1), in_order, back), (GIVEN[0][:, :1], GIVEN[1][:, :1]))
        assert torch.equal(got[0].data, want[0].data)
        assert torch.equal(got[1][0], want[1][0])
