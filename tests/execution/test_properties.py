"""For every option of ``nn.LSTM``, shape, layout and state: ``AdaptiveLSTM`` returns what ``nn.LSTM`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al

from ..support.helpers import OnReference, assert_close, assert_equal, infer, infer_natively, torch_lstm

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own note about its own path

MANY = settings(max_examples=200)
SOME = settings(max_examples=30)


@dataclass(frozen=True)
class Case:
    """One stack and one input for it; ``batch`` None: unbatched."""

    options: dict[str, Any]
    steps: int
    batch: int | None
    layout: str
    given_state: str
    seed: int

    def lstm(self) -> nn.LSTM:
        return torch_lstm(**self.options, seed=self.seed)

    def shape(self, *sizes: int) -> tuple[int, ...]:
        """[T, B, ...] in the order that the LSTM takes."""
        if self.batch is None:
            return (self.steps, *sizes)
        batch_first = self.options["batch_first"]
        return (self.batch, self.steps, *sizes) if batch_first else (self.steps, self.batch, *sizes)

    def input(self, generator: torch.Generator) -> torch.Tensor:
        return laid_out(self.shape(self.options["input_size"]), self.layout, generator)

    def hx(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.given_state == "none":
            return None
        o = self.options
        cells = o["num_layers"] * (2 if o["bidirectional"] else 1)
        rows = () if self.batch is None else (self.batch,)
        h = laid_out((cells, *rows, o["proj_size"] or o["hidden_size"]), self.given_state, generator)
        return h.clamp(-1, 1), laid_out((cells, *rows, o["hidden_size"]), self.given_state, generator)


def laid_out(shape: tuple[int, ...], layout: str, generator: torch.Generator) -> torch.Tensor:
    """Random values in a memory layout that is contiguous or is not."""
    if layout == "transposed":
        return torch.randn(*reversed(shape), generator=generator).permute(*reversed(range(len(shape))))
    if layout == "strided":
        return torch.randn(*(2 * n for n in shape), generator=generator)[tuple(slice(1, None, 2) for _ in shape)]
    if layout == "expanded":
        return torch.randn(1, *shape[1:], generator=generator).expand(shape)
    return torch.randn(*shape, generator=generator)


LAYOUTS = st.sampled_from(["contiguous", "transposed", "strided", "expanded"])


@st.composite
def cases(draw: st.DrawFn, batches: st.SearchStrategy[int | None] | None = None) -> Case:
    hidden, layers = draw(st.integers(1, 35)), draw(st.integers(1, 4))
    options = {
        "input_size": draw(st.integers(1, 20)),
        "hidden_size": hidden,
        "num_layers": layers,
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
        "proj_size": draw(st.one_of(st.just(0), st.integers(0, hidden - 1))),
        "dropout": draw(st.sampled_from([0.0, 0.5])) if layers > 1 else 0.0,
    }
    return Case(
        options=options,
        steps=draw(st.integers(1, 70)),  # the kernels work in chunks of 64 rows
        batch=draw(batches if batches is not None else st.sampled_from([None, 1, 2, 3, 17])),
        layout=draw(LAYOUTS),
        given_state=draw(st.one_of(st.just("none"), LAYOUTS)),
        seed=draw(st.integers(0, 99)),
    )


@MANY
@given(cases())
def test_native_equals_torch(case: Case) -> None:
    lstm, generator = case.lstm(), torch.Generator().manual_seed(case.seed)
    x, hx = case.input(generator), case.hx(generator)
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    assert_close(infer_natively(fast, x, hx), infer(lstm, x, hx), "fp32")
    assert fast.last_run is not None
    assert fast.last_run.timesteps == case.steps * (case.batch or 1)
    assert fast.last_run.macs == fast.last_run.macs_possible


@SOME
@given(cases())
def test_whichever_path_is_faster_equals_torch(case: Case) -> None:
    lstm, generator = case.lstm(), torch.Generator().manual_seed(case.seed)
    x, hx = case.input(generator), case.hx(generator)
    assert_close(infer(al.AdaptiveLSTM.from_lstm(lstm), x, hx), infer(lstm, x, hx), "fp32")


@SOME
@given(cases())
def test_reference_equals_torch_in_float64(case: Case) -> None:
    lstm, generator = case.lstm().double(), torch.Generator().manual_seed(case.seed)
    x, hx = case.input(generator).double(), case.hx(generator)
    hx = None if hx is None else (hx[0].double(), hx[1].double())
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    want = infer(lstm, x, hx)
    assert_equal(infer(fast, x, hx), want)
    assert fast.last_run is not None
    assert fast.last_run.route == al.types.Route("torch", "dtype float64")
    fast.policy = OnReference(al.Dense())
    assert_close(infer(fast, x, hx), want, "fp64")
    assert fast.last_run.route.by == "reference"


@MANY
@given(cases(batches=st.integers(1, 9)), st.booleans(), st.data())
def test_packed_sequences(case: Case, enforce_sorted: bool, data: st.DataObject) -> None:
    assert case.batch is not None
    lengths = data.draw(st.lists(st.integers(1, case.steps), min_size=case.batch, max_size=case.batch))
    lengths = sorted(lengths, reverse=True) if enforce_sorted else lengths
    lstm, generator = case.lstm(), torch.Generator().manual_seed(case.seed)
    x, hx = case.input(generator), case.hx(generator)
    packed = pack_padded_sequence(
        x, torch.tensor(lengths), batch_first=case.options["batch_first"], enforce_sorted=enforce_sorted
    )
    fast = al.AdaptiveLSTM.from_lstm(lstm)
    got, want = infer_natively(fast, packed, hx), infer(lstm, packed, hx)
    assert_close(got, want, "fp32")
    assert isinstance(got[0], PackedSequence)
    padded, got_lengths = pad_packed_sequence(got[0], batch_first=case.options["batch_first"])
    assert got_lengths.tolist() == lengths
    assert_close(padded, pad_packed_sequence(want[0], batch_first=case.options["batch_first"])[0], "fp32")
    assert fast.last_run is not None
    assert fast.last_run.timesteps == sum(lengths)


@SOME
@given(cases(batches=st.integers(1, 5)), st.data())
def test_a_packed_row_equals_the_row_alone(case: Case, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, case.steps), min_size=case.batch or 1, max_size=case.batch or 1))
    fast = al.AdaptiveLSTM.from_lstm(case.lstm())
    generator = torch.Generator().manual_seed(case.seed)
    rows = [torch.randn(n, case.options["input_size"], generator=generator) for n in lengths]
    packed = nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    output, (h, c) = infer_natively(fast, packed)
    padded, _ = pad_packed_sequence(output)
    for b, row in enumerate(rows):
        alone = infer_natively(fast, row)
        assert_close((padded[: len(row), b], (h[:, b], c[:, b])), alone, "fp32")


@SOME
@given(cases(), st.data())
def test_a_sequence_may_be_cut_anywhere(case: Case, data: st.DataObject) -> None:
    options = {**case.options, "bidirectional": False}
    fast = al.AdaptiveLSTM.from_lstm(torch_lstm(**options, seed=case.seed))
    x = case.input(torch.Generator().manual_seed(case.seed))
    time = 1 if case.batch is not None and options["batch_first"] else 0
    cut = data.draw(st.integers(1, case.steps))
    whole, end = infer_natively(fast, x)
    first, state = infer_natively(fast, x.narrow(time, 0, cut))
    if cut < case.steps:
        second, state = infer_natively(fast, x.narrow(time, cut, case.steps - cut), state)
        first = torch.cat([first, second], dim=time)
    assert_close((first, state), (whole, end), "fp32")
