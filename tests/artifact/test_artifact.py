"""What ``save`` writes comes back as it was, bit for bit; everything else is refused with the reason."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.runtime.monitor import Range

from ..support.artifact_cases import Tagger, certificate_of, lstm_of, prune, settings, tagger
from ..support.helpers import OnReference, assert_equal, infer, signal, torch_lstm
from ..support.policy_cases import FAMILIES, SHAPES, head

PRECISIONS = (
    al.Quantize(),
    al.Quantize("int8"),
    al.Quantize("bf16", matrices={"weight_hh_l1": "int8", "weight_ih_l2": "fp32"}),
    al.Quantize("int8", raw="int8", raw_scale=(1.0, 2.5, 0.1, 3e-9, 7.0), levels=127, input_levels=500),
    al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=100),
)
STACK = SHAPES["plain"]


def through_a_file(fast: nn.Module, model: nn.Module, path: Path) -> nn.Module:
    """Saved and loaded; everything that is set on any LSTM is as it was."""
    al.save(fast, path)
    loaded = al.load(path, model)
    for name, m in fast.named_modules():
        if isinstance(m, al.AdaptiveLSTM):
            other = loaded.get_submodule(name)
            assert isinstance(other, al.AdaptiveLSTM)
            assert settings(other) == settings(m)
    return loaded


@pytest.mark.parametrize("quantize", range(len(PRECISIONS)))
@pytest.mark.parametrize("pruned", [False, True])
def test_every_policy_in_every_precision(tmp_path: Path, quantize: int, pruned: bool) -> None:
    for i, case in enumerate(FAMILIES):
        shape, policy, streams = case.values
        if (i + quantize) % len(PRECISIONS) and case.id is not None and not case.id.startswith("plain-hold"):
            continue  # every policy in one precision at least, the holding ones in all
        original = lstm_of(shape, batch_first=bool(i % 2))
        fast = al.AdaptiveLSTM.from_lstm(original)
        fast.quantize, fast.policy = PRECISIONS[quantize], policy
        if pruned:
            prune(fast)
        loaded = through_a_file(fast, original, tmp_path / "model")
        assert isinstance(loaded, al.AdaptiveLSTM)
        x = signal(3, 12, 5) if i % 2 else signal(12, 3, 5)
        assert_equal(infer(loaded, x), infer(fast, x))
        assert loaded.last_run == fast.last_run
        if streams:
            with al.stream(fast, 3) as a, al.stream(loaded, 3) as b:
                assert_equal(b.run(x), a.run(x))
                assert a.stats == b.stats
                assert_equal(b.state, a.state)


@pytest.mark.parametrize(
    "policy",
    [
        al.Delta.uniform(0.0),
        al.Delta(h=(0.1, None, tuple(np.linspace(0, 1, 9))), x=((math.inf,) * 5, 1e-30, 0.3)),
        al.Delta(h=0.1, x=None),
        al.SkipTimesteps(x_share=float("inf"), h=0.1, mode="hold_state", cap=2**30),
        al.HoldLayers(x_share=(float("inf"), None)),
        al.ExitInTime(head(9), threshold=(0.1, float("inf")), starts=(0, 7)),
        al.ExitInTime(nn.Sequential(nn.Dropout(), nn.Linear(9, 4), nn.Sigmoid()), threshold=0.5),
        al.ExitInDepth(head=nn.Linear(9, 1, bias=False)),
        al.SplitTime(chunk=2**30, warm_up=1, tolerance=(0.0, math.inf, 0.1)),
        al.Combined(),
        al.Combined(al.Combined(al.Delta.uniform(0.1)), al.SkipTimesteps(x_share=0.1), al.ExitInTime()),
    ],
)
def test_settings_of_every_kind(tmp_path: Path, policy: al.Policy) -> None:
    fast = al.AdaptiveLSTM.from_lstm(lstm_of(STACK))
    fast.policy = policy
    loaded = through_a_file(fast, lstm_of(STACK), tmp_path / "model")
    assert isinstance(loaded, al.AdaptiveLSTM)
    assert type(loaded.policy) is type(policy)
    if isinstance(policy, al.Delta | al.SkipTimesteps | al.HoldLayers):
        assert loaded.policy == policy


def test_a_model_with_several_lstms_and_its_certificate(tmp_path: Path) -> None:
    model, fast = tagger()
    path, x = tmp_path / "model.alstm", signal(12, 3, 5)
    before = infer(model, x)
    for onto in (model, al.adapt(model), fast):
        loaded = through_a_file(fast, onto, path)
        assert_equal(infer(loaded, x), infer(fast, x))
        assert not set(map(id, loaded.modules())) & set(map(id, onto.modules()))
    assert al.load_certificate(path) is None
    certificate = certificate_of(fast)
    al.save(fast, str(path), certificate=certificate)
    assert al.load_certificate(str(path)) == certificate
    assert str(al.load_certificate(path)) == str(certificate)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert_equal(infer(model, x), before)
    for other in (certificate_of(al.adapt(model)), certificate_of(fast, weights="0")):
        with pytest.raises(
            al.errors.InputError, match="certificate: it is of a model with other weights or in another"
        ):
            al.save(fast, path, certificate=other)


def test_a_certificate_beside_another_policy_is_refused(tmp_path: Path) -> None:
    _, fast = tagger()
    path, certificate = tmp_path / "model", certificate_of(fast)
    al.save(fast, path, certificate=certificate)
    above: Any = fast.get_submodule("above")
    certified = above.policy
    other = al.Combined(al.Delta.uniform(0.02), al.ExitInTime(fast.get_submodule("fc"), threshold=0.3, check_every=2))
    for policy in (al.Delta(h=5.0), al.Dense(), other):
        above.policy = policy
        with pytest.raises(al.errors.InputError, match=r"covers 'Delta\(tau=0.1\)', and the model has another policy"):
            al.save(fast, path, certificate=certificate)
        al.save(fast, path)  # without it
    above.policy = certified
    al.save(fast, path, certificate=certificate)


def test_a_file_whose_certificate_was_replaced_is_refused(tmp_path: Path) -> None:
    model, fast = tagger()
    path = tmp_path / "model"
    certificate = certificate_of(fast, policy_digest="0" * 64)
    with mock.patch("adaptive_lstm.artifact.artifact.policy_digest", return_value="0" * 64):
        al.save(fast, path, certificate=certificate)
    refused(path, model, "certificate: it covers .*, and the policy beside it is another one")
    with pytest.raises(al.errors.ModelFileError, match="and the policy beside it is another one"):
        al.load_certificate(path)


def test_a_certificate_beside_another_head_is_refused(tmp_path: Path) -> None:
    _, fast = tagger()
    certificate = certificate_of(fast)
    with torch.no_grad():
        fast.get_parameter("fc.weight").mul_(-5)
    with pytest.raises(al.errors.InputError, match="of a model with other weights around the LSTMs"):
        al.save(fast, tmp_path / "model", certificate=certificate)


def test_a_file_with_a_certificate_is_of_one_head(tmp_path: Path) -> None:
    model, fast = tagger()
    al.save(fast, tmp_path / "certified", certificate=certificate_of(fast))
    al.save(fast, tmp_path / "settings")
    al.load(tmp_path / "certified", model)
    with torch.no_grad():
        model.fc.weight.mul_(-5)
    refused(tmp_path / "certified", model, "certificate: it is of a model with other weights around its LSTMs")
    al.load(tmp_path / "settings", model)


@pytest.mark.filterwarnings("ignore")  # torch.ao.quantization is deprecated
def test_a_quantized_head_counts(tmp_path: Path) -> None:
    _, fast = tagger()
    other = copy.deepcopy(fast)
    with torch.no_grad():
        other.get_parameter("fc.weight").mul_(-5)
    first, second = (torch.ao.quantization.quantize_dynamic(m, {torch.nn.Linear}) for m in (fast, other))
    assert not any(isinstance(m, torch.nn.Linear) for m in first.modules())
    al.save(first, tmp_path / "model", certificate=certificate_of(first))
    with pytest.raises(al.errors.InputError, match="other weights around the LSTMs"):
        al.save(second, tmp_path / "model", certificate=certificate_of(first))


@pytest.mark.parametrize(("share", "left"), [(0.0, 1.0), (0.5, 0.55), (0.9, 0.17)])
def test_pruned_weights_take_little_room(tmp_path: Path, share: float, left: float) -> None:
    original = torch_lstm(40, 64, 2, bias=False)
    fast = al.AdaptiveLSTM.from_lstm(original)
    prune(fast, share)
    through_a_file(fast, original, tmp_path / "model")
    assert (tmp_path / "model").stat().st_size < left * 4 * sum(p.numel() for p in original.parameters()) + 5000


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    fast, path = al.AdaptiveLSTM.from_lstm(lstm_of(STACK)), tmp_path / "model"
    al.save(fast, path)
    whole = path.read_bytes()

    def refused(message: str) -> None:
        with pytest.raises(al.errors.InputError, match=message):
            al.save(fast, path)

    fast.policy = OnReference(al.Delta.uniform(0.1))
    refused(r"AdaptiveLSTM: 0\.policy: OnReference is Python code, which a file .* again after you load")
    fast.policy = al.Combined(al.Delta.uniform(0.1), al.ExitInTime(torch.tanh, threshold=0.5))
    refused(r"0\.policy\.1\.head: builtin_function_or_method is Python code.* give the exit a LinearHead")
    fast.policy = al.ExitInDepth(head=nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 2)))
    refused(r"head: Sequential is Python code")
    fast.policy = al.Dense()
    fast.plan = replace(fast.plan, expected_rates={"activity": Range(0.5, -1.0, 3)})
    refused(r"cannot be saved: the LSTM: monitor\.activity: got")
    fast.plan = replace(fast.plan, expected_rates=None)
    prune(fast)
    with torch.no_grad():
        next(fast.parameters())[0] += 1
    refused("the weights have changed since they were pruned or rounded")
    fast.replaced = None
    with pytest.raises(al.errors.InputError, match="no AdaptiveLSTM or AdaptiveLSTMCell; convert it first"):
        al.save(lstm_of(STACK), path)
    full = mock.patch("os.replace", side_effect=OSError(28, "No space left on device"))
    with full, pytest.raises(al.errors.ModelFileError, match="cannot write"):
        al.save(fast, path)
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def refused(path: Path, model: Any, message: str, error: type[Exception] = al.errors.ModelFileError) -> None:
    with pytest.raises(error, match=message):
        al.load(path, model)


def test_other_models(tmp_path: Path) -> None:
    model, fast = tagger()
    path = tmp_path / "model"
    al.save(fast, path)
    other = Tagger().eval()
    with torch.no_grad():
        next(other.above.parameters())[0, 0] += 1e-6
    refused(path, other, "model: above: its parameters differ from those of the saved model")
    other.above = torch_lstm(18, 6, bias=False)
    refused(path, other, "above: got .*'hidden_size': 6.*, but the file is of another model, with .*'hidden_size': 7")
    del other.above
    refused(path, other, r"with the LSTMs \['above', 'below.lstm'\], got one with \['below.lstm'\]")
    refused(path, nn.Linear(2, 2), "holds no torch.nn.LSTM", al.errors.InputError)
    refused(path, "model", "got str, expected a torch.nn.Module", al.errors.InputError)
    assert_equal(infer(al.load(path, model), signal(9, 2, 5)), infer(fast, signal(9, 2, 5)))


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    model, fast = tagger()
    path = tmp_path / "model"
    al.save(fast, path)
    whole = path.read_bytes()
    for data in (b"", whole[:5], whole[:-1], whole[: len(whole) // 2], whole + b"x", b"\xff" * 99, pickle.dumps(model)):
        path.write_bytes(data)
        refused(path, model, "model is damaged or no model file")
    flipped = bytearray(whole)
    flipped[-100] ^= 1  # a weight, which safetensors does not notice
    path.write_bytes(flipped)
    refused(path, model, "is damaged: its contents have changed since it was written")
    with pytest.raises(al.errors.ModelFileError, match="contents have changed"):
        al.load_certificate(path)
    path.write_bytes(whole)
    with safe_open(path, framework="numpy") as file:
        metadata, contents = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for message, change in {
        "got model of version 3, but this adaptive_lstm reads up to version 2; upgrade it": {"version": "3"},
        "got adaptive_lstm sensitivity, expected adaptive_lstm model": {"format": "adaptive_lstm sensitivity"},
        "contents have changed": {"header": metadata["header"].replace("0.05", "0.06")},
        "damaged": {"header": json.dumps([1])},
        "damaged or no": {"header": "[" * 100_000},
    }.items():
        save_file(contents, path, metadata | change)
        refused(path, model, message)
    refused(tmp_path, model, "no such file")
