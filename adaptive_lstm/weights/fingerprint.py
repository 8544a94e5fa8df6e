"""Digests of weights: has an LSTM changed since it was planned, is it the one that was compressed or certified?"""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from .layout import named_weights


def _version(tensor: torch.Tensor) -> int:
    """How often torch has counted a write to the tensor; those made under inference_mode have no counter."""
    return -1 if tensor.is_inference() else tensor._version


class Fingerprint:
    """Notices when a weight of an ``nn.LSTM`` was replaced, moved or written to in place.

    Writes through ``.data`` or numpy leave no trace in torch, so they go unnoticed. The weights seen are kept alive:
    otherwise a new one could be placed where an old one was, and look the same.
    """

    def __init__(self, lstm: nn.LSTM):
        found = [(name, getattr(lstm, name, None)) for name in lstm._flat_weights_names]
        self._seen = [(name, w, w.data_ptr(), _version(w), w.detach()) for name, w in found if w is not None]

    def unchanged(self, lstm: nn.LSTM) -> bool:
        """Whether nothing has changed since."""
        parameters = lstm._parameters
        for name, old, address, version, _ in self._seen:  # as short as it can be: this runs before every call
            w = parameters.get(name)
            if w is None:
                w = getattr(lstm, name, None)
            if w is not old or w.data_ptr() != address or (version >= 0 and w._version != version):
                return False
        return True


def digest(lstm: nn.LSTM) -> str:
    """SHA-256 of all parameters as float32, in hexadecimal."""
    found = hashlib.sha256()
    for name, value in sorted(named_weights(lstm).items()):
        _update(found, f"{name}{tuple(value.shape)}", value)
    return found.hexdigest()


def _update(found: hashlib._Hash, name: str, value: torch.Tensor | None) -> None:
    found.update(name.encode())
    if value is not None:
        found.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
