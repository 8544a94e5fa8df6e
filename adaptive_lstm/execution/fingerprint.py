"""Notices that the weights of an ``nn.LSTM`` have changed since a plan was made of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .contents import Contents, Regions, contents_of, doubt_all


class Fingerprint:
    """What the weights of an ``nn.LSTM`` were: which tensors, where, how often written to, and what they held.

    torch counts most writes, and a count costs nothing to compare. It counts none to tensors made in inference mode,
    none of other processes to shared or mapped memory, none through ``.data`` or numpy, and none of fused optimizers.
    So contents are compared too: at every call where nothing is counted, and where weights are computed anew for it
    (pruning hooks, parametrizations); after every step of an optimizer; else little by little (``Contents.look``).

    The weights seen are kept alive: otherwise a new one could be placed where an old one was, and look the same.

    ``dear``: whether every call compares everything.

    Args:
        lstm: the module.
        weights: its weights by name. Each was read once, since computed ones are new tensors every time.
        contents: compare contents. Without, computed weights count as unchanged.
        most: bytes of every weight that are compared; None: all.
    """

    __slots__ = ("_contents", "_layout", "_look", "_most", "_seen", "_uncounted", "dear")

    def __init__(
        self, lstm: nn.LSTM, weights: Mapping[str, torch.Tensor], *, contents: bool = True, most: int | None = None
    ):
        _watch_optimizers()
        found = None
        self._layout, self._most = _layout(weights), most
        stored = _stored(lstm, weights)
        self._uncounted = _uncounted(stored)
        if contents and all(w.is_cpu for w in weights.values()):
            found = contents_of(_regions(weights, most), always=self._uncounted)
        self.dear = found is not None and (self._uncounted or len(stored) < len(weights))
        self._hold(weights if contents else stored, found)

    def _hold(self, weights: Mapping[str, torch.Tensor], contents: Contents | None) -> None:
        self._contents = contents
        self._look = None if contents is None else contents.look
        self._seen: list[tuple[str, Any, Any, int, int, Any]] = [
            (name, w, w.data_ptr, w.data_ptr(), _version(w), w.detach()) for name, w in weights.items()
        ]

    def unchanged(self, lstm: nn.LSTM, timesteps: int) -> bool:
        """Whether no change is found since; computed weights always count as changed (``followed`` tells more).

        Args:
            lstm: the module.
            timesteps: batch rows times timesteps that ran since the last call.
        """
        parameters: Any = lstm._parameters
        try:
            for name, old, address_of, address, version, _ in self._seen:  # kept short: this runs before every call
                if parameters[name] is not old or address_of() != address or (version >= 0 and old._version != version):
                    return False
        except KeyError:  # computed by now
            return False
        look = self._look
        return look is None or look(timesteps)

    def stored(self, lstm: nn.LSTM) -> list[tuple[str, torch.Tensor, int, int]] | None:
        """Name, tensor, address and version of every weight, if they are all the parameters of the module; else None.

        A version below zero: torch counts no writes.
        """
        if [name for name, *_ in self._seen] != list(lstm._parameters):
            return None
        return [(name, w, address, version) for name, w, _, address, version, _ in self._seen]

    @property
    def contents(self) -> Contents | None:
        """What the weights held, if contents are compared."""
        return self._contents

    def followed(self, lstm: nn.LSTM, weights: Mapping[str, torch.Tensor]) -> Fingerprint | None:
        """The fingerprint of weights that hold what these held, wherever they are; None if they do not.

        How it compares is decided anew: they may be shared by now, for example, or computed.
        """
        if self._contents is None:
            return None
        stored = _stored(lstm, weights)
        uncounted = _uncounted(stored)
        if (uncounted, uncounted or len(stored) < len(weights)) != (self._uncounted, self.dear):
            out = Fingerprint(lstm, weights, most=self._most)  # first: a write after it is noticed
            return out if self.held_by(weights) is not None else None
        contents = self.held_by(weights)
        if contents is None:
            return None
        out = self._alike()
        out._hold(weights, contents)
        return out

    def held_by(self, weights: Mapping[str, torch.Tensor]) -> Contents | None:
        """The same contents where these weights are; None if they hold something else, or nothing is compared."""
        if self._contents is None or _layout(weights) != self._layout:
            return None
        counted = [
            w is old and w.data_ptr() == address and version >= 0 and w._version == version
            for w, (_, old, _, address, version, _) in zip(weights.values(), self._seen, strict=True)
        ]
        return self._contents.moved(_regions(weights, self._most), counted)

    def _alike(self) -> Fingerprint:
        """One that compares as this does, and holds nothing yet."""
        out = object.__new__(Fingerprint)
        out._layout, out._most, out._uncounted, out.dear = self._layout, self._most, self._uncounted, self.dear
        return out

    def for_copy(self) -> Fingerprint:
        """The fingerprint for a copy of the module: ``held_by`` compares what its weights hold, before its first call.

        It keeps none of these weights alive.
        """
        out = self._alike()
        out._contents, out._look = self._contents, None
        out._seen = [(name, None, None, 0, -1, None) for name, *_ in self._seen]
        return out

    def certainly_unchanged(self, lstm: nn.LSTM) -> bool:
        """Whether nothing has changed since: everything is compared."""
        self.doubt()
        return self.unchanged(lstm, 0)

    @property
    def used(self) -> bool:
        """Whether a call has found the weights unchanged, or nothing is compared."""
        return self._contents is None or self._contents.looks > 0

    def doubt(self) -> bool:
        """Something may have been written without a count: the next call compares everything, if it can."""
        if self._contents is not None:
            self._contents.doubt()
        return self._contents is not None


def _stored(lstm: nn.LSTM, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those that are parameters of the module; the others are computed for every call."""
    return {name: w for name, w in weights.items() if name in lstm._parameters}


def _uncounted(stored: Mapping[str, torch.Tensor]) -> bool:
    """Whether there are writes to them that torch does not count."""
    return any(w.is_inference() or w.is_shared() for w in stored.values())


def _layout(weights: Mapping[str, torch.Tensor]) -> list[Any]:
    return [(name, w.dtype, w.shape, w.stride(), w.device) for name, w in weights.items()]


def _regions(weights: Mapping[str, torch.Tensor], most: int | None) -> Regions:
    """Address and size in bytes of every weight, with the gaps between its elements, if there are any."""
    out = []
    for w in weights.values():
        span = 1 + sum((size - 1) * stride for size, stride in zip(w.shape, w.stride(), strict=True))
        size = span * w.element_size() if w.numel() else 0
        out.append((w.data_ptr(), size if most is None else min(size, most)))
    return out


def _version(tensor: torch.Tensor) -> int:
    """How often torch has counted a write to the tensor; those made under inference_mode have no counter."""
    return -1 if tensor.is_inference() else tensor._version


@functools.cache
def _watch_optimizers() -> None:
    """Fused optimizers do not count their writes: after any optimizer's step, contents are compared once."""

    def stepped(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        doubt_all()

    register_optimizer_step_post_hook(stepped)
