"""Ways of calling: inference mode, other defaults, autocast, tracing, compiling, several threads."""

from __future__ import annotations

import copy
import re
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import adaptive_lstm as al

from ..support.helpers import (
    adapted,
    always_native,
    assert_close,
    assert_equal,
    infer,
    infer_natively,
    signal,
    torch_lstm,
)

X = signal(20, 2, 6)


def test_inference_mode() -> None:
    fast = adapted(6, 9, 2)
    with torch.inference_mode(), always_native():
        got = fast(X)
        copied = copy.deepcopy(fast)(X)
    assert_close((got, copied), (infer(torch_lstm(6, 9, 2), X),) * 2, "fp32")


def test_another_default_dtype() -> None:
    fast = adapted(6, 9, 2)
    want = infer_natively(fast, X)
    torch.set_default_dtype(torch.float64)
    try:
        got = infer_natively(fast, X)
        with al.stream(fast, batch_size=2) as s:
            steps = torch.stack([s.step(x) for x in X])
            state = s.state
    finally:
        torch.set_default_dtype(torch.float32)
    assert_equal(got, want)
    assert_close((steps, state.h, state.c), (want[0], *want[1]), "fp32")


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and warns about what nn.LSTM itself does in Python
def test_another_default_device() -> None:
    """Tensors of the meta device hold nothing, so none may be made by default."""
    model = torch.nn.Sequential(torch_lstm(6, 9, 2, batch_first=True)).eval()
    batches = [X.transpose(0, 1)] * 8
    with torch.device("meta"):
        fast: Any = al.adapt(model)
        al.compress_within(fast, batches, 0.3, progress=False)
        al.compress(fast, batches, prune=al.Prune("unit", 0.25), quantize=al.Quantize("int8"), rounding="compensated")
        al.measure_sensitivities(fast, batches, progress=False)
        with al.stream(fast[0], 2) as stream:
            steps = torch.stack([stream.step(x) for x in X])
            assert stream.exited.device.type == "cpu"
        whole = infer_natively(fast[0], batches[0])[0]
    assert_equal(steps.transpose(0, 1), whole)


class Tagger(torch.nn.Module):
    """An LSTM and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = torch_lstm(6, 9, 2, batch_first=True), torch.nn.Linear(9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.head(self.lstm(x)[0]))


SEQUENCES = [signal(8, 1, 6, seed=n).transpose(0, 1) for n in range(80)]
BATCHES = [torch.cat(SEQUENCES[i : i + 8]) for i in range(0, 32, 8)]
RUNS: dict[str, Callable[[Any], object]] = {
    "pruned": lambda m: al.compress(m, BATCHES, prune=al.Prune("unit", 0.25)),
    "rounded": lambda m: al.compress(m, BATCHES, quantize=al.Quantize("int8"), rounding="compensated"),
    "within": lambda m: al.compress_within(m, BATCHES, 0.5, progress=False),
    "sensitivity": lambda m: al.measure_sensitivities(m, BATCHES, progress=False),
    "translators": lambda m: al.fit_translators(m, SEQUENCES[:10]),
    "calibrated": lambda m: al.calibrate(
        m,
        SEQUENCES,
        loss=al.losses.clipped_error(1.0),
        max_loss=0.5,
        confidence=0.8,
        policies=[al.Delta],
        progress=False,
    ),
    "warm": lambda m: al.warm_up(m, [(2, 3), BATCHES[0]]),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "around", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)], ids=["inference", "autocast"]
)
def test_what_surrounds_a_function_that_runs_the_model(around: Callable[[], Any], run: str) -> None:
    """Neither inference mode, whose tensors let no gradients pass, nor autocast, under which torch serves."""
    fast: Any = al.adapt(Tagger().eval())
    with around(), warnings.catch_warnings():
        warnings.filterwarnings("error", "adaptive_lstm: nn.LSTM itself served")
        RUNS[run](fast)
    assert not torch.is_inference_mode_enabled()
    assert fast.lstm.last_run is None
    assert torch.isfinite(infer(fast, BATCHES[0])).all()


def test_batches_of_inference_mode() -> None:
    fast = al.adapt(Tagger().eval())
    with torch.inference_mode():
        batches = [batch.clone() for batch in BATCHES]
        found = al.measure_sensitivities(fast, batches, progress=False)
    again = al.measure_sensitivities(fast, [(batch,) for batch in batches], progress=False)
    plain = al.measure_sensitivities(fast, BATCHES, progress=False)
    for one in (found["lstm"], again["lstm"]):
        np.testing.assert_array_equal(one.rows[1], plain["lstm"].rows[1])


def test_weights_of_inference_mode() -> None:
    with torch.inference_mode():
        fast = al.adapt(Tagger().eval())
    for run in ("sensitivity", "pruned"):
        with pytest.raises(al.errors.InputError, match=r"made under torch.inference_mode\(\)"):
            RUNS[run](fast)
        RUNS[run](copy.deepcopy(fast))


def test_sequences_under_another_default_device() -> None:
    lstm = adapted(6, 9, 2)
    sequences = [signal(n, 1, 6, seed=n)[:, 0] for n in (5, 9, 2)]
    want, fast = [infer(lstm, x) for x in sequences], al.adapt(Tagger().eval())
    with torch.device("meta"):
        got = list(al.map_sequences(lstm, sequences))
        padded = list(al.map_sequences(lambda x: lstm(x)[0].data, sequences, layout="equal"))
        share = al.time_policy(fast, SEQUENCES[:3], use="batch", rounds=al.bench.MIN_ROUNDS)
    assert_close(got, want, "fp32")
    assert len(padded) == 3
    assert share.use == "batch"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore::torch.jit.TracerWarning")  # torch's own
def test_traced() -> None:
    fast = adapted(6, 9, 2)
    with torch.no_grad():
        traced = torch.jit.trace(fast, X)
    other = signal(20, 2, 6, seed=1)
    assert_close(traced(other), infer(torch_lstm(6, 9, 2), other), "fp32")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo notes what it leaves to Python
def test_compiled() -> None:
    fast = adapted(6, 9, 2)
    compiled = torch.compile(fast, backend="eager")
    assert_close(infer(compiled, X), infer(torch_lstm(6, 9, 2), X), "fp32")


def test_autocast() -> None:
    fast, lstm = adapted(6, 9, 2), torch_lstm(6, 9, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16), always_native():
        try:
            want = infer(lstm, X)
        except RuntimeError as error:  # oneDNN has no bfloat16 LSTM for processors without AVX-512
            with pytest.raises(RuntimeError, match=re.escape(str(error))):
                infer(fast, X)
            return
        got = infer(fast, X)
    assert got[0].dtype == want[0].dtype
    assert (got[0] - want[0]).abs().max() < 0.02


def test_threads_share_a_module() -> None:
    fast, lstm = adapted(6, 40, 2, policy=al.Delta.uniform(0.0)), torch_lstm(6, 40, 2)
    inputs = [signal(20 + n, 1 + n % 3, 6, seed=n) for n in range(8)]
    ready = threading.Barrier(4)

    def work(worker: int) -> list[Any]:
        ready.wait()
        return [infer(fast, x) for _ in range(4) for x in inputs[worker::4]]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for worker, got in enumerate(results):
        assert_close(got, [infer(lstm, x) for _ in range(4) for x in inputs[worker::4]], "fp32")
