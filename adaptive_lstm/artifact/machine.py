"""The machine on which the policies of a file were timed, against this one. Needs no torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from .. import bench
from ..calibration.time_words import in_words
from ..codec import is_number
from ..execution.backend import isa


def tell_of_another_machine(savings: Any, *, stacklevel: int) -> None:
    """Warn if the time that a policy leaves was measured on a machine unlike this one.

    Args:
        savings: ``Certificate.savings``, from a file: nothing is told of what is not as it should be.
        stacklevel: of the warning, as ``warnings.warn`` takes it from a call of this function.
    """
    if not isinstance(savings, Mapping):
        return
    there, quartiles = (savings.get("cpu"), savings.get("isa")), savings.get("time_quartiles")
    if not (all(isinstance(one, str) for one in there) and isinstance(quartiles, list | tuple) and len(quartiles) == 2):
        return
    times = [savings.get("time"), *quartiles]
    here = (bench.cpu_model(), isa())
    if there == here or not all(is_number(t) and t > 0 for t in times):
        return
    median, low, high = map(float, times)
    share = bench.Ratio(median, low, high, bench.MIN_ROUNDS)
    warnings.warn(
        f"adaptive_lstm: the policy was timed on {there[0]} ({there[1]}): {in_words(share)}. This is {here[0]} "
        f"({here[1]}), where it may be otherwise; measure it here with adaptive_lstm.time_policy(model, inputs), which "
        "needs torch",
        UserWarning,
        stacklevel=stacklevel + 1,
    )
