"""Everything that is set on an ``AdaptiveLSTM``, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..codec import brief, short_repr
from ..errors import InputError
from ..policies import Combined, Dense, Policy, parts
from ..types import StackShape
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .monitor import RATES, Range


@short_repr
@dataclass(frozen=True, eq=False)
class Plan:
    """How an ``AdaptiveLSTM`` runs; assign it to ``AdaptiveLSTM.plan``.

    ``policy``: what a run may leave out.
    ``quantize``: the precision of every weight matrix.
    ``replaced``: weights that are executed instead of the parameters, or None: the parameters.
    ``expected_rates``: ranges of the watched rates (``Rates``) that calibration saw, which a monitor compares every run
    with; None: no monitor.
    ``weights_stay``: your promise that nobody writes to the weights in a way that torch does not count (``.data``,
    numpy, shared memory, inference mode) and that pruning hooks or parametrizations compute the same weights every
    time. Contents are not compared then; after a change all the same, call ``AdaptiveLSTM.replan``.
    """

    policy: Policy = field(default_factory=Dense)
    quantize: Quantize = field(default_factory=Quantize)
    replaced: ReplacedWeights | None = None
    expected_rates: Mapping[str, Range] | None = None
    weights_stay: bool = False

    def compiles_as(self, other: Plan) -> bool:
        """Whether a stack that was compiled for the other serves this one too: the same values are set."""
        if self.replaced is not other.replaced or self.weights_stay is not other.weights_stay:
            return False
        return _alike(self.policy, other.policy) and _alike(self.quantize, other.quantize)

    def check(self, shape: StackShape) -> None:
        """Raise ``PolicyError`` or ``InputError`` unless policy and precision fit a stack."""
        Combined(self.policy).check(shape)
        rates: Any = {} if self.expected_rates is None else self.expected_rates
        known = isinstance(rates, Mapping) and rates.keys() <= set(RATES)
        if not known or not all(isinstance(one, Range) for one in rates.values()):
            raise InputError(
                f"expected_rates: got {brief(rates)}, expected the Range of some of {', '.join(RATES)}, or None"
            )
        if not isinstance(self.replaced, ReplacedWeights | None):
            raise InputError(f"replaced: got {type(self.replaced).__name__}, expected what compress made, or None")
        if not isinstance(self.quantize, Quantize):
            raise InputError(
                f"got {type(self.quantize).__name__}, expected adaptive_lstm.Quantize, for example Quantize('int8')"
            )
        self.quantize.check(shape)

    @cached_property
    def exact(self) -> bool:
        """Whether a run gives what ``nn.LSTM`` gives: nothing is skipped, quantized or replaced."""
        return self.quantize.exact and self.replaced is None and not parts(self.policy).acts


def _alike(a: Any, b: Any) -> bool:
    """Whether two values are of the same classes and hold the same, down to what is no frozen dataclass or container.

    That is compared by identity, and so is Python code.
    """
    if type(a) is not type(b):
        return False
    if is_dataclass(a):
        kind: Any = type(a)
        frozen = kind.__dataclass_params__.frozen
        return frozen and all(_alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_alike(value, b[key]) for key, value in a.items())
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a is b or (isinstance(a, bool | int | float | str) and a == b)
