"""Detects weights that have changed since an LSTM was compressed or certified, by digest.

Digests of settings are ``codec.digest``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .. import codec
from .layout import float32, named_weights

if TYPE_CHECKING:
    import torch
    from torch import nn


def digest(named: Iterable[tuple[str, torch.Tensor | np.ndarray | None]]) -> str:
    """SHA-256 of names, shapes and float32 values, in the order given, in hexadecimal."""
    found = hashlib.sha256()
    for name, value in named:
        found.update(f"{name}{None if value is None else tuple(value.shape)};".encode())
        if value is not None:
            values = value.astype(np.float32) if isinstance(value, np.ndarray) else float32(value)
            found.update(values.tobytes())
    return found.hexdigest()


def weights_digest(lstm: nn.LSTM) -> str:
    """``digest`` of all parameters of an LSTM."""
    return digest(sorted(named_weights(lstm).items()))


def model_digest(lstms: Mapping[str, nn.LSTM]) -> str:
    """SHA-256 of the parameters and dtypes of several LSTMs by module name, in hexadecimal."""
    return codec.digest({name: (weights_digest(lstm), str(lstm.weight_ih_l0.dtype)) for name, lstm in lstms.items()})


def surroundings_digest(model: nn.Module, lstms: Mapping[str, nn.LSTM]) -> str:
    """SHA-256 of all parameters and persistent buffers of a model outside its LSTMs, in hexadecimal."""
    inside = tuple(f"{name}." if name else "" for name in lstms)
    state = model.state_dict()
    return codec.digest({name: of_bytes(value) for name, value in state.items() if not name.startswith(inside)})


def of_bytes(value: object) -> object:
    """A tensor as dtype, shape and digest of its bytes; containers by their parts; None for what else is no number."""
    import torch

    if isinstance(value, tuple | list):
        return [of_bytes(one) for one in value]
    if isinstance(value, dict):
        return {str(key): of_bytes(one) for key, one in value.items()}
    if isinstance(value, torch.Tensor) and value.is_quantized:
        scales = value.q_per_channel_scales() if "channel" in str(value.qscheme()) else value.q_scale()
        points = value.q_per_channel_zero_points() if "channel" in str(value.qscheme()) else value.q_zero_point()
        return of_bytes([value.int_repr(), scales, points])
    if not isinstance(value, torch.Tensor):
        return repr(value) if isinstance(value, bool | int | float | str | bytes) else None
    # see layout.float32
    copy = value.detach().resolve_conj().resolve_neg().cpu().clone(memory_format=torch.contiguous_format)
    data = copy.flatten().view(torch.uint8).numpy().tobytes()
    return str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()
