"""``save`` and ``load``: what was set on an adapted model, in one file, without the weights that the user has.

A safetensors file whose JSON header holds, for every LSTM by its module name, precision, policy, monitor and the
fingerprint of its parameters; replaced weights, thresholds, heads and translators are arrays. A SHA-256 covers it all,
because safetensors does not notice altered weights. Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from .. import tensorfile
from ..calibration.certificate import Certificate
from ..errors import AdaptiveLSTMError, InputError, ModelFileError
from ..policies import Combined, Policy
from ..runtime.adapt import adapt, lstms_of
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.monitor import Monitor, Range, Rates
from ..types import StackShape
from ..weights.fingerprint import model_digest, quantization_digest, weights_digest
from ..weights.layout import shape_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from . import fields
from .fields import Arrays
from .policies import from_plain, to_plain
from .weights import read_replaced, write_replaced

_KIND, _VERSION = "model", 1
_LSTM = ("shape", "parameters", "quantize", "replaced", "policy", "monitor")
_OLDER = {"raw_range": "static"}  # of ``Quantize``, in files from before there was a choice


@dataclass(frozen=True, eq=False)
class _Settings:
    """Everything that is set on one LSTM; ``monitor``: its ranges, or None."""

    quantize: Quantize
    replaced: ReplacedWeights | None
    policy: Policy
    monitor: Mapping[str, Range] | None


def save(model: nn.Module, path: str | os.PathLike[str], *, certificate: Certificate | None = None) -> None:
    """Write what makes an adapted model fast: replaced weights, precision, policy and monitor of every LSTM.

    The model's own parameters are not stored: ``load`` needs the model again, with the weights that it has now. The
    file is written at once; a failure leaves what was there before.

    Args:
        model: an adapted model, or one ``AdaptiveLSTM``.
        path: where to; an existing file is replaced.
        certificate: ``Calibration.certificate`` of this model, which ``load_certificate`` gives back.

    Raises:
        InputError: no adapted LSTM, a policy or head written in Python, a certificate of another model, or parameters
            that have changed since they were replaced.
        ModelFileError: the file cannot be written.
    """
    lstms = lstms_of(model)
    if certificate is not None and (
        certificate.weights != model_digest(lstms) or certificate.quantization != quantization_digest(lstms)
    ):
        raise InputError("certificate: it is of a model with other weights or in another precision than this one")
    arrays: dict[str, np.ndarray] = {}
    described = {name: _plain(lstm, name, f"{i}", arrays) for i, (name, lstm) in enumerate(lstms.items())}
    header = {"lstms": described, "certificate": None if certificate is None else certificate.to_json()}
    try:
        _parsed(json.loads(json.dumps(header)), arrays, lstms)  # nothing is written that could not be read
    except AdaptiveLSTMError as error:
        raise InputError(f"the model cannot be saved: {error}") from error
    tensorfile.write(path, _KIND, _VERSION, header | {"sha256": _checksum(header, arrays)}, arrays)


def load(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """An adapted deep copy of a model, with everything that was set on the saved one; it runs just like that one.

    Monitors start anew. The copy is in training mode if ``model`` is.

    Args:
        path: what ``save`` has written.
        model: the original model, or an adapted one, whose settings are replaced. It stays as it is.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, of a newer version, or of another model.
        InputError: the model holds no ``nn.LSTM``.
    """
    header, arrays = _read(path)
    if not isinstance(model, nn.Module):
        raise InputError(f"got {type(model).__name__}, expected a torch.nn.Module")
    found = {name: m for name, m in model.named_modules() if type(m) in (nn.LSTM, AdaptiveLSTM)}
    if not found:
        raise InputError(f"{type(model).__name__} holds no torch.nn.LSTM, expected the model that was saved")
    try:
        settings = _parsed(header, arrays, found)
    except AdaptiveLSTMError as error:
        raise ModelFileError(f"{path}: {error}") from error
    fast = adapt(model)
    modules = dict(fast.named_modules())
    for name, one in settings.items():
        lstm = modules[name]
        assert isinstance(lstm, AdaptiveLSTM)
        lstm.quantize, lstm.replaced, lstm.policy = one.quantize, one.replaced, one.policy
        lstm.monitor = None if one.monitor is None else Monitor(one.monitor)  # after the policy, which takes it away
    return fast


def load_certificate(path: str | os.PathLike[str]) -> Certificate | None:
    """The certificate in a file that ``save`` has written, or None if it was given none.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, or of a newer version.
    """
    try:
        return _certificate(_read(path)[0])
    except InputError as error:
        raise ModelFileError(f"{path}: certificate: {error}") from error


# ------------------------------------------------------------------------------------------------------------ writing


def _plain(lstm: AdaptiveLSTM, name: str, at: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is set on an LSTM as JSON can say it; arrays are added with names that begin with ``at``."""
    quantize = lstm.quantize
    if quantize.raw_scale is not None:
        arrays[f"{at}.raw_scale"] = np.asarray(quantize.raw_scale, np.float32)
    try:
        if lstm.replaced is not None:
            lstm.executed()  # raises if the parameters have changed since
            write_replaced(lstm.replaced, f"{at}.replaced", arrays)
        policy = to_plain(lstm.policy, f"{at}.policy", arrays)
    except InputError as error:
        raise InputError(f"{name or type(lstm).__name__}: {error}") from error
    return {
        "shape": asdict(lstm.stack_shape),
        "parameters": weights_digest(lstm),
        "quantize": asdict(quantize) | {"raw_scale": quantize.raw_scale is not None},
        "replaced": lstm.replaced is not None,
        "policy": policy,
        "monitor": None if lstm.monitor is None else {k: asdict(v) for k, v in lstm.monitor.expected.items()},
    }


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of a header and all arrays, in hexadecimal."""
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


# ------------------------------------------------------------------------------------------------------------ reading


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays, as they were written."""
    header, arrays = tensorfile.read(path, _KIND, _VERSION)
    if header.pop("sha256", None) != _checksum(header, arrays):
        raise ModelFileError(f"{path} is damaged: its contents have changed since it was written; save the model again")
    return header, arrays


def _certificate(header: dict[str, Any]) -> Certificate | None:
    found = header.get("certificate")
    return None if found is None else Certificate.from_json(fields.text(found, "certificate"))


def _parsed(
    header: dict[str, Any], arrays: dict[str, np.ndarray], lstms: Mapping[str, nn.LSTM]
) -> dict[str, _Settings]:
    """The settings of every LSTM, all of them checked against the model's LSTMs."""
    described = fields.mapping(fields.mapping(header, "header", ("lstms", "certificate"))["lstms"], "lstms")
    _certificate(header)
    if described.keys() != lstms.keys():
        raise ModelFileError(f"it is of a model with the LSTMs {sorted(described)}, got one with {sorted(lstms)}")
    given, out = Arrays(arrays), {}
    for i, (name, found) in enumerate(described.items()):
        try:
            out[name] = _of_lstm(fields.mapping(found, "settings", _LSTM), f"{i}", given, lstms[name])
        except AdaptiveLSTMError as error:
            raise ModelFileError(f"{name or 'the LSTM'}: {error}") from error
    given.finish()
    return out


def _of_lstm(found: dict[str, Any], at: str, arrays: Arrays, lstm: nn.LSTM) -> _Settings:
    """The settings of one LSTM.

    Raises:
        AdaptiveLSTMError: they are damaged, impossible, or of another LSTM.
    """
    shape = shape_of(lstm)
    if found["shape"] != asdict(shape):
        raise ModelFileError(f"got {asdict(shape)}, but the file is of another model, with {found['shape']!r:.200}")
    if found["parameters"] != weights_digest(lstm):
        raise ModelFileError("its parameters are others than those of the saved model; load it with that model")
    policy = from_plain(found["policy"], f"{at}.policy", arrays)
    Combined(policy).check(shape)
    replaced = None
    if fields.flag(found["replaced"], "replaced"):
        replaced = ReplacedWeights(read_replaced(shape, f"{at}.replaced", arrays), found["parameters"])
    return _Settings(_quantize(found["quantize"], at, arrays, shape), replaced, policy, _monitor(found["monitor"]))


def _quantize(found: object, at: str, arrays: Arrays, shape: StackShape) -> Quantize:
    given = _OLDER | fields.mapping(found, "quantize")
    f = fields.mapping(given, "quantize", Quantize.__dataclass_fields__)
    matrices = fields.mapping(f["matrices"], "matrices")
    for name in ("precision", "raw", "raw_range", *matrices):
        fields.text((f | matrices)[name], name)
    for name in ("levels", "input_levels", "raw_levels"):
        fields.whole(f[name], name)
    measured = fields.flag(f["raw_scale"], "raw_scale")
    scale = arrays.take(f"{at}.raw_scale", "float32", shape.input_size) if measured else None
    quantize = Quantize(**f | {"raw_scale": scale})
    quantize.check(shape)
    return quantize


def _monitor(found: object) -> dict[str, Range] | None:
    if found is None:
        return None
    out = {}
    for name, one in fields.mapping(found, "monitor").items():
        if name not in Rates.__dataclass_fields__:
            raise ModelFileError(f"monitor: got {name!r:.50}, expected {', '.join(Rates.__dataclass_fields__)}")
        f = fields.mapping(one, f"monitor.{name}", Range.__dataclass_fields__)
        mean, deviation = (fields.number(f[key], f"monitor.{name}.{key}") for key in ("mean", "deviation"))
        count = fields.whole(f["count"], f"monitor.{name}.count")
        if not (0 <= mean <= 1 and 0 <= deviation <= 1 and count >= 1):
            raise ModelFileError(f"monitor.{name}: got {f}, expected a mean and a deviation in 0..1 of some runs")
        out[name] = Range(mean, deviation, count)
    return out
