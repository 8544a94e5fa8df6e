"""The result of ``calibrate``: the chosen policies, every candidate of the search, and the record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import nn

from ..codec import check_flag, short_repr
from ..errors import InputError
from ..policies import Policy
from ..policies.combined import acts
from ..runtime.adapt import adapted_lstms
from ..runtime.monitor import Range
from ..weights.fingerprint import model_digest, surroundings_digest
from .candidates import Settings
from .certificate import Certificate, precision_of, quantization_digest
from .constants import other_constant
from .time_share import TimeShare

M = TypeVar("M", bound=nn.Module)


@short_repr
@dataclass(frozen=True, eq=False)
class Point:
    """A candidate that ran on the whole search split.

    Attributes:
        name: its policies with their strengths, in words.
        settings: its policies, by module name of the LSTM.
        cost: by the objective, as a share of the dense model's: measured for the finalists of a search by time, else
            predicted.
        macs: multiply-accumulates done, as a share of those possible.
        search_risks: mean of every loss on the search split.
        test_risks: mean of every loss on the test split; None if it was not tested.
        p_value: of "some mean loss is above its limit"; None if it was not tested.
        certified: whether it passed its test.
        time: what was measured of a finalist; None for the others.
    """

    name: str
    settings: Settings
    cost: float
    macs: float
    search_risks: tuple[float, ...]
    test_risks: tuple[float, ...] | None = None
    p_value: float | None = None
    certified: bool = False
    time: TimeShare | None = None


@short_repr
@dataclass(frozen=True, eq=False)
class Calibration:
    """The result of ``calibrate``.

    Attributes:
        certified: whether a candidate passed.
        settings: the chosen policies, by module name of the LSTM; ``Dense()`` if none passed.
        frontier: every candidate that ran on the whole search split, the cheapest first.
        certificate: the record, which can be saved with the model.
        ranges: per LSTM and rate (``Rates``), the range on the test split, with which the monitor compares; empty if
            none passed.
        time: what the chosen policies leave of the time, as measured; None if nothing is skipped.
    """

    certified: bool
    settings: Settings
    frontier: tuple[Point, ...]
    certificate: Certificate
    ranges: Mapping[str, Mapping[str, Range]]
    time: TimeShare | None = None

    @property
    def policy(self) -> Policy:
        """The chosen policy of a model with one LSTM; ``Dense()`` if none passed.

        Raises:
            InputError: the model holds several LSTMs; ``settings`` has one policy for each.
        """
        if len(self.settings) > 1:
            raise InputError(f"the model holds {len(self.settings)} LSTMs: use .settings, which has a policy for each")
        return next(iter(self.settings.values()))

    def apply(self, model: M, *, force: bool = False) -> M:
        """Set the chosen policies in place, and return the model; what may skip and is certified gets a monitor.

        Args:
            model: the one that was calibrated, or a copy.
            force: apply policies that were measured slower than nothing skipped too: even the lower quartile of their
                time is above. Those of which no gain was measured are applied; ``time`` says so.

        Raises:
            InputError: the model holds other LSTMs than those that were calibrated, other weights or constants in or
                around them, or another precision, or the policies are slower than nothing skipped; nothing is changed
                then.
        """
        check_flag("force", force)
        lstms = adapted_lstms(model)
        if set(lstms) != set(self.settings):
            raise InputError(f"the model holds the LSTMs {sorted(lstms)}, calibrated were {sorted(self.settings)}")
        if quantization_digest(lstms) != self.certificate.quantization:
            raise InputError(
                f"precision: got {precision_of(lstms)}, calibrated was {self.certificate.precision}, or other settings "
                "of Quantize; compress first, then calibrate"
            )
        if model_digest(lstms) != self.certificate.weights:
            raise InputError("the LSTMs have other weights than those that were calibrated; calibrate this model")
        if surroundings_digest(model, lstms) != self.certificate.surroundings:
            raise InputError(
                "the model has other weights around its LSTMs (a head, for example) than the one that was calibrated; "
                "calibrate this model"
            )
        if other := other_constant(self.certificate.constants, model, lstms):
            raise InputError(
                f"the model holds another value in {other} than the one that was calibrated; calibrate this model"
            )
        if self.time is not None and self.time.slower and not force:
            raise InputError(
                f"the chosen policies were measured {self.time}; nothing was applied. Calibrate with "
                "objective='latency', or say apply(model, force=True)"
            )
        for name, lstm in lstms.items():
            policy = self.settings[name]
            expected = self.ranges[name] if self.certified and acts(policy) else None
            lstm.plan = replace(lstm.plan, policy=policy, expected_rates=expected)
        return model
