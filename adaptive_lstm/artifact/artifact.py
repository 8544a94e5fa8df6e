"""``save`` and ``load``: an adapted model's settings in one file, by default without the weights that the user has.

A safetensors file whose JSON header holds, for every LSTM by its module name, precision, policy, monitor and the
fingerprint of its parameters; replaced weights, thresholds, heads and translators are arrays, and so are, if asked for,
the weights that are executed. Nothing is ever unpickled or executed.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from torch import nn

from .. import codec, tensorfile
from ..calibration.certificate import Certificate, policy_digest, quantization_digest
from ..calibration.constants import other_constant
from ..errors import AdaptiveLSTMError, InputError, ModelFileError
from ..files import FilePath
from ..policies import Policy, kind_of, members, parts
from ..runtime.adapt import adapt, adaptable, lstms_of
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.plan import Plan
from ..types import StackShape, sites
from ..weights.fingerprint import model_digest, surroundings_digest, weights_digest
from ..weights.layout import CellTensors, shape_of, tensors_of
from ..weights.matrices import CellMatrices, same_bits
from ..weights.precision import Quantize
from ..weights.quantization import quantize_stack
from ..weights.replaced import ReplacedWeights
from . import container
from .machine import tell_of_another_machine
from .matrices import read_matrices, write_matrices
from .policies import Kinds, decode_policy, encode_policy, known_kinds
from .stacks import read_settings, read_shape
from .weights import read_replaced, standing_in, write_replaced

M = TypeVar("M", bound=nn.Module)


def save(model: nn.Module, path: FilePath, *, certificate: Certificate | None = None, weights: bool = False) -> None:
    """Write the settings of an adapted model: replaced weights, precision, policy and monitor of every LSTM.

    By default the model's own parameters are not stored: ``load`` needs the model again, with the weights that it has
    now. With ``weights`` the file is self-contained: it holds the weights as they are executed, int8 as int8, without
    zeros where a bitmask is smaller, in as many bytes as ``report`` says. ``load`` takes it like any other: parameters
    are checked, and replaced weights come back as float32 weights that round to the stored ones. Weights that an LSTM
    executes in float32 or bfloat16 come back as they are.

    The file is written at once; after a failure the old one is still there. A new file gets the mode that the umask
    leaves, a replaced one keeps its own. A symbolic link stays, and the file that it names is replaced; other hard
    links of that file keep what they held.

    Args:
        model: an adapted model, or one ``AdaptiveLSTM``.
        path: where to; an existing file is replaced.
        certificate: ``Calibration.certificate`` of this model, which ``load_certificate`` gives back.
        weights: whether to store the executed weights too, for readers that do not have the model.

    Raises:
        InputError: no adapted LSTM, a policy or head written in Python, a certificate of another model or of another
            policy, or parameters that have changed since they were replaced.
        ModelFileError: the file cannot be written.
    """
    codec.check_flag("weights", weights)
    header, arrays = _contents(model, certificate, weights)
    container.write(path, header, arrays, weights=weights)


def dumps(lstm: AdaptiveLSTM) -> tuple[bytes, str]:
    """What ``save(lstm, path, weights=True)`` writes, and the digest of what it says. Raises ``InputError``."""
    header, arrays = _contents(lstm, None, weights=True)
    return container.dumps(header, arrays), tensorfile.checksum(header, arrays)


def _contents(
    model: nn.Module, certificate: Certificate | None, weights: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a file, which have been read back. Raises ``InputError`` as ``save`` does."""
    lstms = lstms_of(model)
    arrays: dict[str, np.ndarray] = {}
    described = {name: _described(lstm, name, f"{i}", weights, arrays) for i, (name, lstm) in enumerate(lstms.items())}
    if not isinstance(certificate, Certificate | None):
        raise InputError(f"certificate: got {type(certificate).__name__}, expected Calibration.certificate, or None")
    if certificate is not None:
        _check_certificate(certificate, model, lstms)
    header = {"lstms": described, "certificate": None if certificate is None else certificate.to_json()}
    kinds = {kind_of(one).name: type(one) for lstm in lstms.values() for one in members(lstm.policy)}
    try:  # nothing is written that could not be read, or that would be read as something else
        settings, _ = _parsed(json.loads(json.dumps(header)), arrays, lstms, known_kinds(list(kinds.values())))
        for name, lstm in lstms.items():
            if codec.digest(settings[name].policy) != codec.digest(lstm.policy):
                raise InputError(f"{name or 'the LSTM'}: its policy would be read as {settings[name].policy}")
    except AdaptiveLSTMError as error:
        raise InputError(f"the model cannot be saved: {error}") from error
    return header, arrays


def load(path: FilePath, model: M, *, policies: Sequence[type[Policy]] = ()) -> M:
    """An adapted deep copy of a model with the settings of the saved one; it runs just like that one.

    Monitors start anew. The copy is in training mode if ``model`` is. A warning says if the certified policy was timed
    on another machine.

    Args:
        path: what ``save`` has written.
        model: the original model, or an adapted one, whose settings are replaced. It stays as it is.
        policies: your own classes of policies that the file may hold, each a dataclass with a ``PolicyKind``.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, of a newer version, or of another model,
            or holds a policy of an unknown class, or a certificate of another policy or of a model with other weights
            or constants around its LSTMs.
        InputError: the model holds no ``nn.LSTM``, or ``policies`` holds something else than classes of policies.
    """
    kinds = known_kinds(policies)
    header, arrays = container.read(path)
    if not isinstance(model, nn.Module):
        raise InputError(f"got {type(model).__name__}, expected a torch.nn.Module")
    found = adaptable(model)
    if not found:
        raise InputError(
            f"{type(model).__name__} holds no torch.nn.LSTM or LSTMCell, expected the model that was saved"
        )
    try:
        settings, certificate = _parsed(header, arrays, found, kinds)
        if certificate is not None and certificate.surroundings != surroundings_digest(model, found):
            raise ModelFileError(
                "certificate: it is of a model with other weights around its LSTMs (a head, for example) than this "
                "one; load that model, or save this one's settings without the certificate"
            )
        if certificate is not None and (other := other_constant(certificate.constants, model, found)):
            raise ModelFileError(
                f"certificate: it is of a model with another value in {other} than this one; load that model, or save "
                "this one's settings without the certificate"
            )
    except AdaptiveLSTMError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from error
    fast = adapt(model)
    for name, lstm in lstms_of(fast).items():
        lstm.plan = settings[name]
    if certificate is not None:
        tell_of_another_machine(certificate.savings, stacklevel=2)
    return fast


def load_certificate(path: FilePath, *, policies: Sequence[type[Policy]] = ()) -> Certificate | None:
    """The certificate in a file that ``save`` has written, or None if it was given none.

    Args:
        path: what ``save`` has written.
        policies: as for ``load``.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, or of a newer version, or its
            certificate covers another policy than the one in the file.
        InputError: ``policies`` holds something else than classes of policies.
    """
    kinds = known_kinds(policies)
    header, arrays = container.read(path)
    try:
        described = container.lstms_in(header)
        given = codec.Arrays(arrays)
        settings = {
            name: decode_policy(found["policy"], f"{i}.policy", given, kinds)
            for i, (name, found) in enumerate(described.items())
        }
        return _certificate(header, settings)
    except AdaptiveLSTMError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from error


# ------------------------------------------------------------------------------------------------------------ writing


def _check_certificate(certificate: Certificate, model: nn.Module, lstms: Mapping[str, AdaptiveLSTM]) -> None:
    """Raise ``InputError`` if a certificate does not cover the settings of a model."""
    if certificate.weights != model_digest(lstms) or certificate.quantization != quantization_digest(lstms):
        raise InputError("certificate: it is of a model with other weights or in another precision than this one")
    if certificate.surroundings != surroundings_digest(model, lstms):
        raise InputError("certificate: it is of a model with other weights around the LSTMs than this one")
    if other := other_constant(certificate.constants, model, lstms):
        raise InputError(f"certificate: it is of a model with another value in {other} than this one")
    if certificate.policy_digest != policy_digest({name: lstm.policy for name, lstm in lstms.items()}):
        raise InputError(
            f"certificate: it covers {codec.brief(certificate.policy)}, and the model has another policy; set the "
            "certified one (calibration.apply(model)), or save without the certificate"
        )


def _described(lstm: AdaptiveLSTM, name: str, at: str, weights: bool, arrays: codec.Written) -> dict[str, Any]:
    """The settings of an LSTM as JSON values; arrays are added with names that begin with ``at``."""
    try:
        lstm.executed()  # raises if the parameters have changed since they were replaced
        policy = encode_policy(lstm.policy, f"{at}.policy", arrays)
        executed = _executed(lstm, at, arrays) if weights else {"replaced": lstm.replaced is not None}
    except InputError as error:
        raise InputError(f"{name or type(lstm).__name__}: {error}") from error
    if lstm.replaced is not None and executed["replaced"] is True:
        write_replaced(lstm.replaced, f"{at}.replaced", arrays)
    return {
        "shape": codec.encode_changed(lstm.stack_shape, f"{at}.shape", arrays),
        "parameters": weights_digest(lstm),
        "quantize": codec.encode_changed(lstm.quantize, f"{at}.quantize", arrays),
        "policy": policy,
        "monitor": codec.encode(lstm.plan.expected_rates, f"{at}.monitor", arrays),
    } | executed


def _executed(lstm: AdaptiveLSTM, at: str, arrays: codec.Written) -> dict[str, Any]:
    """The executed weights, and whether they say all about the replaced ones: then, whose place they take."""
    matrices = _matrices(lstm, lstm.executed())
    replaced: bool | str = False
    if lstm.replaced is not None:
        rounded = _matrices(lstm, standing_in(matrices))
        replaced = lstm.replaced.digest() if all(map(same_bits, rounded, matrices)) else True
    write_matrices(matrices, f"{at}.weights", arrays)
    return {"replaced": replaced, "weights": True}


def _matrices(lstm: AdaptiveLSTM, weights: Sequence[CellTensors]) -> tuple[CellMatrices, ...]:
    """Weights as this LSTM executes them."""
    return _rounded(weights, lstm.stack_shape, lstm.quantize, lstm.policy)


def _rounded(
    weights: Sequence[CellTensors], shape: StackShape, quantize: Quantize, policy: Policy
) -> tuple[CellMatrices, ...]:
    columns = parts(policy).columns
    thresholded = [site for site in sites(shape) if columns.thresholded(site)]
    return quantize_stack(tuple(weights), shape, quantize, thresholded)


# ------------------------------------------------------------------------------------------------------------ reading


def _certificate(header: dict[str, Any], policies: Mapping[str, Policy]) -> Certificate | None:
    """The certificate in a header, if it covers the policies beside it."""
    found = header["certificate"]
    if found is None:
        return None
    try:
        certificate = Certificate.from_json(codec.decode(str, found, "certificate", codec.Arrays({})))
    except InputError as error:
        raise ModelFileError(f"certificate: {error}") from error
    if certificate.policy_digest != policy_digest(policies):
        raise ModelFileError(
            f"certificate: it covers {codec.brief(certificate.policy)}, and the policy beside it is another one"
        )
    return certificate


def _parsed(
    header: dict[str, Any], arrays: Mapping[str, np.ndarray], lstms: Mapping[str, nn.LSTM], kinds: Kinds
) -> tuple[dict[str, Plan], Certificate | None]:
    """The settings of every LSTM, all of them checked against the model's LSTMs, and the certificate beside them."""
    described, given, out = container.lstms_in(header), codec.Arrays(arrays), {}
    if described.keys() != lstms.keys():
        raise ModelFileError(
            f"it is of a model with the LSTMs {reprlib.repr(sorted(described))}, got one with "
            f"{reprlib.repr(sorted(lstms))}"
        )
    for i, (name, found) in enumerate(described.items()):
        try:
            out[name] = _of_lstm(found, f"{i}", given, lstms[name], kinds)
        except AdaptiveLSTMError as error:
            raise ModelFileError(f"{name or 'the LSTM'}: {error}") from error
    given.finish()
    return out, _certificate(header, {name: one.policy for name, one in out.items()})


def _of_lstm(found: dict[str, Any], at: str, arrays: codec.Arrays, lstm: nn.LSTM, kinds: Kinds) -> Plan:
    """The settings of one LSTM.

    Raises:
        AdaptiveLSTMError: they are damaged, impossible, or of another LSTM.
    """
    shape = shape_of(lstm)
    if read_shape(found, at) != shape:
        raise ModelFileError(f"got {asdict(shape)}, but the file is of another model, with {found['shape']!r:.200}")
    if found["parameters"] != weights_digest(lstm):
        raise ModelFileError("its parameters differ from those of the saved model; load it with that model")
    settings = read_settings(found, shape, at, arrays, kinds)
    executed = None
    if found["weights"]:
        columns = parts(settings.policy).columns
        executed = read_matrices(shape, settings.quantize, columns, f"{at}.weights", arrays)
    replaced = _replaced(found, shape, at, executed, arrays)
    if executed is not None:
        weights = tensors_of(lstm) if replaced is None else replaced.cells
        if not all(map(same_bits, _rounded(weights, shape, settings.quantize, settings.policy), executed)):
            raise ModelFileError("its weights are not those that the model would execute; save it again")
    return Plan(settings.policy, settings.quantize, replaced, expected_rates=settings.monitor)


def _replaced(
    found: dict[str, Any], shape: StackShape, at: str, executed: tuple[CellMatrices, ...] | None, arrays: codec.Arrays
) -> ReplacedWeights | None:
    """The replaced weights, or those that stand for them where the file holds what they round to."""
    kind: bool | str = codec.decode(bool | str, found["replaced"], f"{at}.replaced", arrays)
    if isinstance(kind, str):
        if executed is None:
            raise ModelFileError(f"{at}.replaced: got {kind!r:.80} in a file without weights, expected true or false")
        return ReplacedWeights(standing_in(executed), found["parameters"], kind)
    return ReplacedWeights(read_replaced(shape, f"{at}.replaced", arrays), found["parameters"]) if kind else None
