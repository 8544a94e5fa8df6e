"""What ``deploy`` gives is what the same model gives beside torch, bit for bit: outputs, states and counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.types import StackShape

from ..support.artifact_cases import lstm_of, prune, tagger
from ..support.helpers import infer, infer_natively, native_only, signal
from ..support.policy_cases import FAMILIES, SHAPES

pytestmark = native_only
PRECISIONS = {
    "fp32": al.Quantize(),
    "int8": al.Quantize("int8"),
    "bf16": al.Quantize("bf16"),
    "dynamic": al.Quantize("int8", raw="int8", raw_range="dynamic"),
    "weights only": al.Quantize("int8", levels=0),
}
T, B = 23, 5
LENGTHS = [9, 23, 1, 17, 9]


def both(
    folder: Path, shape: StackShape, policy: al.Policy, precision: str, *, pruned: bool = False
) -> tuple[al.AdaptiveLSTM, deploy.LSTM]:
    """An LSTM and what is loaded from its file."""
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(shape)).eval()
    fast.quantize, fast.policy = PRECISIONS[precision], policy
    if pruned:
        prune(fast)
    al.save(fast, folder / "model.alstm", weights=True)
    return fast, deploy.load(folder / "model.alstm").lstm


def assert_same(got: Any, want: Any) -> None:
    """Arrays and tensors of the same bits."""
    if isinstance(want, (tuple, list)):
        for one, other in zip(got, want, strict=True):
            assert_same(one, other)
        return
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, want.numpy())


def assert_runs_alike(fast: al.AdaptiveLSTM, lstm: deploy.LSTM, x: torch.Tensor) -> None:
    """Whole batches: of one length and ragged, with and without given states, and one sequence alone."""
    shape = lstm.shape
    hx = signal(shape.num_cells, B, shape.output_size), signal(shape.num_cells, B, shape.hidden_size)
    packed = pack_padded_sequence(x, LENGTHS, enforce_sorted=False)
    for given in (None, hx):
        state = None if given is None else tuple(one.numpy() for one in given)
        y, out, stats = lstm.run(x.numpy(), state)
        want_y, want = infer_natively(fast, x, given)
        assert_same((y, *out), (want_y, *want))
        assert stats == fast.last_run
        y, out, stats = lstm.run(x.numpy(), state, LENGTHS)
        want_y, want = infer_natively(fast, packed, given)
        assert_same((y, *out), (pad_packed_sequence(want_y)[0], *want))
        assert stats == fast.last_run
        one = None if given is None else (given[0][:, 0].contiguous(), given[1][:, 0].contiguous())
        y, out, stats = lstm.run(x[:, 0].numpy(), None if one is None else tuple(v.numpy() for v in one))
        want_y, want = infer_natively(fast, x[:, 0].contiguous(), one)
        assert_same((y, *out), (want_y, *want))


def assert_streams_alike(fast: al.AdaptiveLSTM, lstm: deploy.LSTM, x: torch.Tensor) -> None:
    """Steps, chunks, rows that start anew, and a state that moves between the two."""
    with al.stream(fast, B) as wanted, lstm.stream(B) as stream:
        for frame in x[:7]:
            assert_same(stream.step(frame.numpy()), wanted.step(frame))
        stream.reset(rows=[3, 1])
        wanted.reset(rows=[3, 1])
        assert_same(stream.run(x[7:15].numpy()), wanted.run(x[7:15]))
        assert stream.stats == wanted.stats
        assert stream.exited.tolist() == wanted.exited.tolist()
        stream.ahead()
        assert_same(stream.step(x[15].numpy()), wanted.step(x[15]))
        state = wanted.state
        stream.state, wanted.state = state.map(lambda tensor: tensor.numpy()), stream.state.map(torch.from_numpy)
        assert_same(stream.run(x[16:].numpy()), wanted.run(x[16:]))
        stream.reset()
        wanted.reset()
        assert_same(stream.step(x[0].numpy()), wanted.step(x[0]))


@pytest.mark.parametrize("pruned", [False, True], ids=["whole", "pruned"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("way", SHAPES)
def test_precisions(tmp_path: Path, way: str, precision: str, pruned: bool) -> None:
    shape = SHAPES[way]
    for policy in (al.Dense(), al.Delta.uniform(0.03)):
        fast, lstm = both(tmp_path, shape, policy, precision, pruned=pruned)
        x = signal(T, B, shape.input_size)
        assert_runs_alike(fast, lstm, x)
        if not shape.bidirectional:
            assert_streams_alike(fast, lstm, x)


@pytest.mark.parametrize(("shape", "policy", "streams"), FAMILIES)
def test_policies(tmp_path: Path, shape: StackShape, policy: al.Policy, streams: bool) -> None:
    fast, lstm = both(tmp_path, shape, policy, "int8")
    x = signal(T, B, shape.input_size)
    assert_runs_alike(fast, lstm, x)
    if streams:
        assert_streams_alike(fast, lstm, x)


def test_columns_of_zeros_that_nothing_prunes_count(tmp_path: Path) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    with torch.no_grad():
        fast.get_parameter("weight_hh_l1")[:, :4] = 0.0
    fast.quantize = al.Quantize("int8")
    al.save(fast, tmp_path / "model.alstm", weights=True)
    lstm, x = deploy.load(tmp_path / "model.alstm").lstm, signal(T, B, 5)
    assert_runs_alike(fast, lstm, x)
    assert_streams_alike(fast, lstm, x)


def test_several_lstms_and_their_monitor(tmp_path: Path) -> None:
    model, fast = tagger()
    al.save(fast, tmp_path / "tagger.alstm", weights=True)
    loaded = deploy.load(tmp_path / "tagger.alstm")
    assert sorted(loaded) == ["above", "below.lstm"]
    assert loaded["above"].monitor is not None
    x = signal(T, B, 5)
    y, _, _ = loaded["below.lstm"].run(x.numpy())
    y, _, _ = loaded["above"].run(y)
    want = infer(fast, x)
    np.testing.assert_array_equal(model.fc(torch.from_numpy(y)).detach().numpy(), want.numpy())
    assert loaded["above"].monitor.status.seen == B
    with pytest.raises(al.errors.InputError, match="2 LSTMs, expected one; choose by name"):
        loaded.lstm  # noqa: B018


@pytest.mark.filterwarnings("always")
def test_a_monitor_warns_of_a_stream(tmp_path: Path) -> None:
    from adaptive_lstm.runtime.monitor import Range

    fast = al.AdaptiveLSTM.from_lstm(lstm_of(SHAPES["plain"])).eval()
    rates = {"activity": Range(0.01, 0.01, 100), "ran": Range(1.0, 0.0, 100), "exits": Range(0.0, 0.0, 100)}
    fast.plan = replace(fast.plan, policy=al.Delta.uniform(0.02), expected_rates=rates)
    al.save(fast, tmp_path / "model.alstm", weights=True)
    stream = deploy.load(tmp_path / "model.alstm").lstm.stream()
    x = signal(1500, 1, 5).numpy()
    with pytest.warns(al.DriftWarning, match="of a stream the LSTM skips unlike in calibration"):
        assert [stream.step(frame) for frame in x]


def test_certificate(tmp_path: Path) -> None:
    from ..support.artifact_cases import certificate_of

    _, fast = tagger()
    certificate = certificate_of(fast)
    al.save(fast, tmp_path / "tagger.alstm", certificate=certificate, weights=True)
    found = deploy.load(tmp_path / "tagger.alstm").certificate
    assert found is not None
    assert found["p_value"] == certificate.p_value
    assert found["policy_digest"] == certificate.policy_digest
