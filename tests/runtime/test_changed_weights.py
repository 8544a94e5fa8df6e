"""Weights that change where torch keeps no count: shared memory, inference mode, fused optimizers, ``.data``."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

import adaptive_lstm as al
from adaptive_lstm.execution.fingerprint import Fingerprint

from ..support.helpers import adapted, always_native, assert_close, assert_equal, infer, infer_natively, signal
from ..support.helpers import torch_lstm as plain_lstm

X = signal(6, 2, 6)
PRECISIONS = ["fp32", "int8"]


def pair(quantize: str = "fp32") -> tuple[al.AdaptiveLSTM, nn.LSTM]:
    return adapted(6, 9, 2, quantize=quantize), plain_lstm(6, 9, 2)


def follows(fast: al.AdaptiveLSTM, lstm: nn.LSTM, quantize: str = "fp32", calls: int = 1) -> None:
    """Within so many calls, fast gives what a fresh LSTM with the weights of lstm gives."""
    fresh = al.AdaptiveLSTM.from_lstm(lstm)
    fresh.quantize = al.Quantize(quantize)  # type: ignore[arg-type]
    want = infer_natively(fresh, X)
    for _ in range(calls - 1):
        infer_natively(fast, X)
    assert_equal(infer_natively(fast, X), want)


def learner(named: dict[str, torch.Tensor], factor: float, only: str, done: Any) -> None:
    """In another process: one tensor, or all, times a factor."""
    with torch.no_grad():
        for name, weight in named.items():
            if name == only or not only:
                weight.mul_(factor)
    done.put(True)


@pytest.mark.parametrize("quantize", PRECISIONS)
@pytest.mark.parametrize("only", ["", "bias_hh_l1", "weight_hh_l0"])
def test_another_process_writes_shared_memory(quantize: str, only: str) -> None:
    fast, lstm = pair(quantize)
    fast.share_memory()
    infer_natively(fast, X)
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    child = context.Process(target=learner, args=(dict(fast.named_parameters()), 0.1, only, done), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; the child uses none
        child.start()
    assert done.get(timeout=60)
    child.join(60)
    learner(dict(lstm.named_parameters()), 0.1, only, context.Queue())
    follows(fast, lstm, quantize)


def test_one_element_of_shared_memory() -> None:
    fast, lstm = pair()
    fast.share_memory()
    infer_natively(fast, X)
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data[3, 4] = 2.0
    follows(fast, lstm)


@pytest.mark.parametrize("quantize", PRECISIONS)
@pytest.mark.parametrize("change", ["reload", "element", "assign"])
def test_models_made_in_inference_mode(quantize: str, change: str) -> None:
    with torch.inference_mode():
        fast, lstm = adapted(6, 9, 2, quantize=quantize), plain_lstm(6, 9, 2)
        assert fast.get_parameter("weight_hh_l0").is_inference()
        infer_natively(fast, X)
        for module in (fast, lstm):
            if change == "element":
                module.get_parameter("weight_hh_l1")[3, 4] = 2.0
            else:
                module.load_state_dict(plain_lstm(6, 9, 2, seed=1).state_dict(), assign=change == "assign")
        follows(fast, lstm, quantize)


def test_ordinary_weights_written_in_inference_mode() -> None:
    fast, lstm = pair()
    infer_natively(fast, X)
    with torch.inference_mode():
        for module in (fast, lstm):
            module.get_parameter("weight_hh_l1")[3, 4] = 2.0
    follows(fast, lstm)


@pytest.mark.parametrize("quantize", PRECISIONS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "Adagrad"])
def test_fused_optimizers(optimizer: str, quantize: str) -> None:
    fast, lstm = pair(quantize)
    infer_natively(fast, X)
    kind = getattr(torch.optim, optimizer)
    for module in (fast, lstm):
        steps = kind([module.get_parameter("bias_hh_l1")], lr=0.1, fused=True)
        nn.LSTM.forward(module, X)[0].pow(2).sum().backward()  # the same gradients
        steps.step()
    assert lstm.get_parameter("bias_hh_l1").detach().ne(plain_lstm(6, 9, 2).get_parameter("bias_hh_l1")).any()
    follows(fast, lstm, quantize)


def test_a_fused_step_that_changes_one_column() -> None:
    """Of large weights few words are compared at every call: here those of the first two columns."""
    fast, lstm = adapted(64, 64), plain_lstm(64, 64)
    x = torch.zeros(1, 1, 64)
    x[..., 5] = 3.0
    for module in (fast, lstm):
        weight = module.get_parameter("weight_ih_l0")
        with torch.no_grad():
            weight[:, 0], weight[:, 1] = 2.0, 1e-6
    for _ in range(3):
        infer_natively(fast, x)
    for module in (fast, lstm):
        step = torch.optim.SGD([module.get_parameter("weight_ih_l0")], lr=0.5, fused=True)
        nn.LSTM.forward(module, x)[0].sum().backward()
        step.step()
    assert_close(infer_natively(fast, x), infer(lstm, x), "fp32")


def test_only_a_change_of_mode_casts_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """``predict`` of many libraries says ``eval()`` ahead of every call: all weights would be compared each time."""
    doubted: list[Fingerprint] = []
    known = Fingerprint.doubt

    def doubt(self: Fingerprint) -> bool:
        doubted.append(self)
        return known(self)

    monkeypatch.setattr(Fingerprint, "doubt", doubt)
    fast = adapted(6, 9, 2)
    infer_natively(fast, X)
    fast.eval()
    fast.train(False)
    assert not doubted
    fast.train()
    assert doubted


def scaled(lstm: nn.LSTM) -> None:
    for p in lstm.parameters():
        p.data.mul_(0.3)


def through_numpy(lstm: nn.LSTM) -> None:
    lstm.get_parameter("weight_hh_l1").detach().numpy()[:] = 0.25


def forget_gate(lstm: nn.LSTM) -> None:
    lstm.get_parameter("bias_ih_l0").data[9:18].fill_(1.0)


def foreach(lstm: nn.LSTM) -> None:
    untyped: Any = torch
    untyped._foreach_mul_([p.data for p in lstm.parameters()], 0.3)


def from_vector(lstm: nn.LSTM) -> None:
    size = sum(p.numel() for p in lstm.parameters())
    vector_to_parameters(torch.linspace(-0.3, 0.3, size), lstm.parameters())


def other_storage(lstm: nn.LSTM) -> None:
    with torch.no_grad():
        lstm.get_parameter("weight_hh_l0").set_(torch.full((36, 9), 0.1))  # type: ignore[call-overload]


@pytest.mark.parametrize("quantize", PRECISIONS)
@pytest.mark.parametrize("change", [scaled, through_numpy, forget_gate, foreach, from_vector, other_storage])
def test_writes_to_whole_tensors_in_eval_mode(change: Callable[[nn.LSTM], None], quantize: str) -> None:
    fast, lstm = pair(quantize)
    for _ in range(2):
        infer_natively(fast, X)
    for module in (fast, lstm):
        change(module)
    follows(fast, lstm, quantize)


def test_one_element_through_data_is_noticed_in_time() -> None:
    fast, lstm = pair()
    infer_natively(fast, X)
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data[3, 4] = 2.0
    follows(fast, lstm, calls=4096 // (X.shape[0] * X.shape[1]) + 2)
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data[5, 4] = 2.0
    fast.replan()
    follows(fast, lstm)


def test_a_stream_opens_with_the_weights_as_they_are() -> None:
    fast, lstm = pair()
    infer_natively(fast, X)
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data[3, 4] = 2.0
    with al.stream(fast, 2) as stream:
        got = stream.run(X)
    assert_close(got, infer(lstm, X)[0], "fp32")


@pytest.mark.parametrize("quantize", PRECISIONS)
def test_modes_that_change_nothing_keep_the_plan(quantize: str) -> None:
    fast, lstm = pair(quantize)
    x = signal(5, 8, 6)
    infer_natively(fast, x)
    planned = fast.executor()
    for toggle in (fast.eval, lambda: fast.train().eval()):
        toggle()
        infer_natively(fast, x)
        assert fast.executor() is planned
    fast.load_state_dict(fast.state_dict())  # counted, but nothing has changed
    assert fast.executor() is planned
    fast.train()
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data[3, 4] = 2.0
    fast.eval()
    follows(fast, lstm, quantize)
    assert fast.executor() is not planned


def test_a_promise_that_weights_stay() -> None:
    fast, lstm = pair()
    fast.plan = replace(fast.plan, weights_stay=True)
    before = infer_natively(fast, X)
    for module in (fast, lstm):
        module.get_parameter("weight_hh_l1").data.mul_(0.5)
    assert_equal(infer_natively(fast, X), before)
    fast.replan()
    follows(fast, lstm)
    for module in (fast, lstm):
        module.load_state_dict(plain_lstm(6, 9, 2, seed=1).state_dict())  # torch counts this
    follows(fast, lstm)


@pytest.mark.parametrize("backend", ["native", "hashed"])
def test_without_the_extension_contents_are_hashed(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "hashed":
        monkeypatch.setattr("adaptive_lstm.execution.contents.native", lambda: False)
    fast, lstm = pair()
    with torch.no_grad(), always_native():
        fast(X)
    for module in (fast, lstm):
        module.get_parameter("weight_ih_l0").data.mul_(0.5)
    follows(fast, lstm)
