"""What a file says about every LSTM, and, of a file with weights, the stacks themselves. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import codec, tensorfile
from ..codec import short_repr
from ..errors import AdaptiveLSTMError, ModelFileError
from ..files import FilePath
from ..policies import Combined, Policy, parts
from ..runtime.monitor import Range, Rates
from ..types import StackShape
from ..weights.matrices import CellMatrices
from ..weights.precision import Quantize
from ..weights.replaced import replaced_digest
from . import container
from .matrices import read_matrices
from .policies import Kinds, decode_policy, known_kinds
from .replaced import read_replaced_arrays


@short_repr
@dataclass(frozen=True, eq=False)
class Settings:
    """What is set on one LSTM.

    ``policy``: what a run may leave out.
    ``quantize``: the precision of every matrix.
    ``monitor``: ranges of the watched rates, or None: no monitor.
    """

    policy: Policy
    quantize: Quantize
    monitor: dict[str, Range] | None


@short_repr
@dataclass(frozen=True, eq=False)
class Stack:
    """An LSTM as it is executed.

    ``shape``: its sizes.
    ``cells``: its weights, one entry per layer and direction.
    ``settings``: what is set on it.
    ``replaced``: whether its weights are others than the parameters: pruned, or rounded with compensation.
    ``digest``: of the weights that were rounded to these; empty: unknown.
    """

    shape: StackShape
    cells: tuple[CellMatrices, ...]
    settings: Settings
    replaced: bool = False
    digest: str = ""

    @property
    def exact(self) -> bool:
        """Whether nothing is skipped, quantized or replaced."""
        return self.settings.quantize.exact and not self.replaced and not parts(self.settings.policy).acts


@short_repr
@dataclass(frozen=True, eq=False)
class Stacks:
    """All LSTMs of a file by module name, and the certificate beside them as JSON, or None."""

    by_name: Mapping[str, Stack]
    certificate: str | None


def read_stacks(path: FilePath, *, policies: Sequence[type[Policy]] = ()) -> Stacks:
    """The stacks of a file that ``save(..., weights=True)`` has written.

    Args:
        path: of the file.
        policies: your own classes of policies that the file may hold.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, of a newer version, or without weights.
        InputError: ``policies`` holds something else than classes of policies.
    """
    kinds = known_kinds(policies)
    header, arrays = container.read(path)
    try:
        given, out = codec.Arrays(arrays), {}
        for i, (name, found) in enumerate(container.lstms_in(header).items()):
            out[name] = _stack(found, f"{i}", given, kinds, name or "the LSTM")
        given.finish()
        certificate = codec.decode(str | None, header["certificate"], "certificate", codec.Arrays({}))
    except AdaptiveLSTMError as error:
        raise ModelFileError(f"{os.fsdecode(path)}: {error}") from error
    return Stacks(out, certificate)


def loads_stack(data: bytes) -> tuple[Stack, str]:
    """The only stack in the bytes of a file, and the digest of what they say. Raises ``ModelFileError``."""
    header, arrays = container.loads(data)
    ((name, found),) = container.lstms_in(header).items()
    given = codec.Arrays(arrays)
    stack = _stack(found, "0", given, known_kinds(()), name or "the LSTM")
    given.finish()
    return stack, tensorfile.checksum(header, arrays)


def _stack(found: dict[str, Any], at: str, arrays: codec.Arrays, kinds: Kinds, name: str) -> Stack:
    if not found["weights"]:
        raise ModelFileError(
            f"{name}: the file holds settings without weights, expected one that was written by "
            "adaptive_lstm.save(model, path, weights=True)"
        )
    shape = read_shape(found, at)
    _check_shape(shape, at)
    settings = read_settings(found, shape, at, arrays, kinds)
    replaced, digest = _origin(found, shape, at, arrays)
    cells = read_matrices(shape, settings.quantize, parts(settings.policy).columns, f"{at}.weights", arrays)
    return Stack(shape, cells, settings, replaced, digest)


def _origin(found: dict[str, Any], shape: StackShape, at: str, arrays: codec.Arrays) -> tuple[bool, str]:
    """Whether the parameters were replaced, and the digest of the weights that were rounded."""
    parameters: str = codec.decode(str, found["parameters"], f"{at}.parameters", arrays)
    replaced: bool | str = codec.decode(bool | str, found["replaced"], f"{at}.replaced", arrays)
    if replaced is True:
        return True, replaced_digest(parameters, read_replaced_arrays(shape, f"{at}.replaced", arrays))
    return (False, parameters) if replaced is False else (True, replaced)


def read_shape(found: dict[str, Any], at: str) -> StackShape:
    """The sizes in an entry of the header. Raises ``ModelFileError``."""
    given = codec.with_defaults(StackShape, found["shape"], f"{at}.shape")
    shape: StackShape = codec.decode(StackShape, given, f"{at}.shape", codec.Arrays({}))
    return shape


def read_settings(found: dict[str, Any], shape: StackShape, at: str, arrays: codec.Arrays, kinds: Kinds) -> Settings:
    """What an entry of the header says is set on an LSTM.

    Raises:
        AdaptiveLSTMError: the settings are damaged, impossible, or of another LSTM.
    """
    policy = decode_policy(found["policy"], f"{at}.policy", arrays, kinds)
    Combined(policy).check(shape)
    given = codec.with_defaults(Quantize, found["quantize"], f"{at}.quantize")
    quantize: Quantize = codec.decode(Quantize, given, f"{at}.quantize", arrays)
    quantize.check(shape)
    monitor: dict[str, Range] | None = codec.decode(dict[str, Range] | None, found["monitor"], "monitor", arrays)
    _check_monitor(monitor or {})
    return Settings(policy, quantize, monitor)


def _check_shape(shape: StackShape, at: str) -> None:
    sizes = shape.input_size, shape.hidden_size, shape.num_layers
    if min(sizes) < 1 or not 0 <= shape.proj_size < shape.hidden_size or shape.num_layers > codec.MAX_ITEMS:
        raise ModelFileError(f"{at}.shape: got {shape}, expected the sizes of an LSTM")


def _check_monitor(monitor: Mapping[str, Range]) -> None:
    for name, one in monitor.items():
        if name not in Rates.__dataclass_fields__:
            raise ModelFileError(f"monitor: got {name!r:.50}, expected {', '.join(Rates.__dataclass_fields__)}")
        if not (0 <= one.mean <= 1 and 0 <= one.deviation <= 1 and one.count >= 1):
            raise ModelFileError(f"monitor.{name}: got {one}, expected a mean and a deviation in 0..1 of some runs")
