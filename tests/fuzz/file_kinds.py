"""The files that the package reads: a good one of each kind, how it is read, and what must work with what was read."""

from __future__ import annotations

import copy
import functools
import io
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm import deploy
from adaptive_lstm.artifact.stacks import Stacks, read_stacks
from adaptive_lstm.calibration.splits import Splits
from adaptive_lstm.cli.model_file import load_lstms
from adaptive_lstm.cli.sequence_file import load_sequences
from adaptive_lstm.errors import AdaptiveLSTMError
from adaptive_lstm.execution.native_stack import NativeStack
from adaptive_lstm.policies import parts
from adaptive_lstm.runtime.monitor import Range
from adaptive_lstm.types import StackShape

from ..support.artifact_cases import certificate_of, prune, settings, tagger
from ..support.helpers import always_native, infer, signal, torch_lstm
from ..support.policy_cases import SHAPES, depth_translators, time_translators
from .damage import DAMAGES, Damage
from .rewrite import ARCHIVE, JSON, NUMPY, SAFETENSORS, in_order
from .target import Fault


@dataclass(frozen=True, kw_only=True)
class FileKind:
    """One kind of file.

    ``name``: of a file of it, with its suffix.
    ``original``: the bytes of a good one.
    ``read``: with the package; raises one of its errors.
    ``use``: what must work with what has been read, or end in an error of the package.
    ``changes``: what can be done to its bytes, by name; those of ``DAMAGES`` are among them.
    ``same``: whether what was read is what was written; None where a changed file may say another thing.
    """

    name: str
    original: Callable[[], bytes]
    read: Callable[[Path], Any]
    use: Callable[[Any], object]
    changes: Mapping[str, Damage]
    same: Callable[[Any], bool] | None = None


# ------------------------------------------------------------------------------------------------------------ artifacts


@functools.cache
def saved() -> tuple[nn.Module, nn.Module, bytes]:
    """A model, the same with everything set, and its file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, fast = tagger()
        in_depth, in_time = depth_translators(SHAPES["both ways"]), time_translators(StackShape(18, 7, 1))
    head = al.LinearHead(np.eye(2, 18, dtype=np.float32), np.zeros(2, np.float32))
    held = (0.1, None, tuple(np.linspace(0, 1, 9)), 0.0, 0.1, 0.1)
    leave = al.ExitInDepth(translators=in_depth, head=head, threshold=0.9)
    settled = al.ExitInTime(None, threshold=0.1, translators=in_time)
    below, above = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
    below.policy = al.Combined(al.Delta(h=held), al.HoldLayers(x_share=0.1), leave)
    below.quantize = al.Quantize("int8", raw="int8", raw_scale=(1.0,) * 5, matrices={"weight_hh_l1": "bf16"})
    above.policy = al.Combined(al.SkipTimesteps(x_share=0.1), settled)
    above.plan = replace(above.plan, expected_rates={"activity": Range(0.5, 0.1, 40)})  # the new policy has none
    return model, fast, in_order(_written(lambda path: al.save(fast, path, certificate=certificate_of(fast))))


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()


def all_settings(model: nn.Module) -> Any:
    """Of all its LSTMs, to be compared."""
    return [settings(m) for m in model.modules() if isinstance(m, al.AdaptiveLSTM)]


def _run(model: nn.Module) -> None:
    all_settings(model)
    with always_native():
        infer(model, signal(6, 2, 5))


@functools.cache
def _with_weights() -> bytes:
    return in_order(_written(lambda path: al.save(saved()[1], path, weights=True)))


def _pack(found: Stacks) -> None:
    """Every stack runs natively, on rows of zeros."""
    for stack in found.by_name.values():
        native = NativeStack(stack.cells, stack.shape, parts(stack.settings.policy), zeros=not stack.exact)
        state, x = native.new_state(1), np.zeros(stack.shape.input_size, np.float32)
        y = np.zeros(stack.shape.directions * stack.shape.output_size, np.float32)
        assert state.step(x.ctypes.data, y.ctypes.data)


@functools.cache
def _replaced() -> tuple[nn.Module, bytes]:
    """A model all of whose weights are replaced, so that a file's are those that run, and the file."""
    fast = copy.deepcopy(saved()[1])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for lstm in fast.modules():
            if isinstance(lstm, al.AdaptiveLSTM) and lstm.replaced is None:
                prune(lstm)
    return fast, in_order(_written(lambda path: al.save(fast, path, weights=True)))


@dataclass(frozen=True)
class Both:
    """A file as it was read beside torch and without; None: refused there."""

    beside: nn.Module | None
    alone: deploy.Model | None


def _read_twice(path: Path) -> Both:
    """What is loaded beside torch loads without; the other way round a file may be of another model."""
    alone: Any = None
    try:
        alone = deploy.load(path)
    except AdaptiveLSTMError as error:
        refused = error
    try:
        beside = al.load(path, saved()[0])
    except AdaptiveLSTMError:
        if alone is None:
            raise
        return Both(None, alone)
    if alone is None and "without weights" not in str(refused):
        raise Fault(f"deployed.alstm: loaded beside torch, and not without: {refused}") from refused
    return Both(beside, alone)


def _runs_alike(found: Both) -> None:
    """Both give the same bits and counts; what is read without torch alone runs."""
    for name, lstm in {} if found.alone is None else found.alone.items():
        x = signal(6, 2, lstm.shape.input_size)
        y, state, stats = lstm.run(x.numpy())
        if found.beside is None:
            continue
        fast = found.beside.get_submodule(name)
        with always_native():
            want, out = infer(fast, x.transpose(0, 1).contiguous() if fast.batch_first else x)
        want = want.transpose(0, 1) if fast.batch_first else want
        same = all(np.array_equal(a, b.numpy()) for a, b in zip((y, *state), (want, *out), strict=True))
        if not same or stats != fast.last_run:
            raise Fault("deployed.alstm: other results without torch than beside it")


# ---------------------------------------------------------------------------------------------------------- sensitivity


@functools.cache
def _sensitivity() -> bytes:
    lstm = al.AdaptiveLSTM.from_lstm(torch_lstm(3, 5, 2, proj_size=2))
    return in_order(_written(al.measure_sensitivity(lstm, [signal(8, 2, 3)]).save))


def _thresholds(found: al.Sensitivity) -> None:
    for policy in (al.Delta.scaled(found, 0.1), al.Delta.priced(found, 100.0, raw=True)):
        found.activity(policy)


# -------------------------------------------------------------------------------------------- weights and sequences


def _state() -> dict[str, torch.Tensor]:
    return {f"rnn.{name}": p.detach() for name, p in torch_lstm(3, 4, 2, proj_size=2).named_parameters()}


def _torch_file() -> bytes:
    into = io.BytesIO()
    torch.save({"epoch": 3, "model": _state()}, into)
    return into.getvalue()


def _legacy_torch_file() -> bytes:
    """Of views of one storage, whose name in the file, its address, is replaced: processes differ in it."""
    state, into = _state(), io.BytesIO()
    parts = torch.cat([value.flatten() for value in state.values()]).split([value.numel() for value in state.values()])
    views = {name: part.view_as(state[name]) for name, part in zip(state, parts, strict=True)}
    torch.save({"epoch": 3, "model": views}, into, _use_new_zipfile_serialization=False)
    return re.sub(rb"X.\0\0\0[0-9]{9,}", b"X\x0f\0\0\0" + b"7" * 15, into.getvalue(), flags=re.DOTALL)


def _npz(save: Callable[..., None], **options: Any) -> bytes:
    into = io.BytesIO()
    x = np.arange(2 * 6 * 3, dtype=np.float32).reshape(12, 3)
    lengths, names = np.array([3, 4, 5]), np.array(["fit", "search", "test"])
    save(into, x=x, length=lengths, y=np.array([1, 0, 2]), split=names, **options)
    return into.getvalue()


def _run_lstms(found: dict[str, nn.LSTM]) -> None:
    with torch.no_grad():
        for lstm in found.values():
            lstm(torch.zeros(1, 2, lstm.input_size))


def _pairs(found: Any) -> None:
    parts = (found.fit, found.search, found.test) if isinstance(found, Splits) else (found,)
    for inputs, target in (pair for part in parts for pair in part):
        assert inputs.shape[0] == 1
        assert inputs.dtype == (torch.float32 if inputs.dim() == 3 else torch.int64)
        assert target is None or isinstance(target, torch.Tensor)


def _from_json(path: Path) -> al.Certificate:
    with suppress(UnicodeDecodeError):
        return al.Certificate.from_json(path.read_text(encoding="utf-8"))
    raise al.errors.InputError("no text")


def _told(found: al.Certificate | None) -> None:
    if found is not None:
        str(found), repr(found), found.to_json()


KINDS = (
    FileKind(
        name="model.alstm",
        original=lambda: saved()[2],
        read=lambda path: al.load(path, saved()[0]),
        use=_run,
        changes={**DAMAGES, **SAFETENSORS},
        same=lambda found: bool(all_settings(found) == all_settings(saved()[1])),
    ),
    FileKind(
        name="certified.alstm",
        original=lambda: saved()[2],
        read=al.load_certificate,
        use=_told,
        changes={**DAMAGES, **SAFETENSORS},
        same=lambda found: bool(found == certificate_of(saved()[1])),
    ),
    FileKind(
        name="contained.alstm",
        original=_with_weights,
        read=read_stacks,
        use=_pack,
        changes={**DAMAGES, **SAFETENSORS},
    ),
    FileKind(
        name="deployed.alstm",
        original=lambda: _replaced()[1],
        read=_read_twice,
        use=_runs_alike,
        changes={**DAMAGES, **SAFETENSORS},
        same=lambda found: found.beside is not None and found.alone is not None,
    ),
    FileKind(
        name="certificate.json",
        original=lambda: certificate_of(saved()[1]).to_json().encode(),
        read=_from_json,
        use=_told,
        changes={**DAMAGES, **JSON},
    ),
    FileKind(
        name="lstm.sensitivity",
        original=_sensitivity,
        read=al.Sensitivity.load,
        use=_thresholds,
        changes={**DAMAGES, **SAFETENSORS},
    ),
    FileKind(
        name="weights.safetensors",
        original=lambda: in_order(safetensors.torch.save(_state(), {"format": "pt"})),
        read=lambda path: load_lstms(str(path)),
        use=_run_lstms,
        changes={**DAMAGES, **{name: change for name, change in SAFETENSORS.items() if name != "say"}},
    ),
    FileKind(
        name="weights.pt",
        original=_torch_file,
        read=lambda path: load_lstms(str(path)),
        use=_run_lstms,
        changes={**DAMAGES, **ARCHIVE},
    ),
    FileKind(
        name="legacy.pt",
        original=_legacy_torch_file,
        read=lambda path: load_lstms(str(path)),
        use=_run_lstms,
        changes=DAMAGES,
    ),
    FileKind(
        name="sequences.npz",
        original=lambda: _npz(np.savez),
        read=load_sequences,
        use=_pairs,
        changes={**DAMAGES, **NUMPY},
    ),
    FileKind(
        name="compressed.npz",
        original=lambda: _npz(np.savez_compressed),
        read=load_sequences,
        use=_pairs,
        changes={**DAMAGES, **NUMPY},
    ),
)  # fmt: skip
