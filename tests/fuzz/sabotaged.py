"""The target of LSTMs with a native core that is wrong on purpose: it tests what the fuzzer can tell."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from unittest import mock

from adaptive_lstm.execution.batch import Batch
from adaptive_lstm.execution.native_runner import NativeRunner
from adaptive_lstm.execution.runner import Result

from .lstm import TARGET
from .target import Case, Seen

Change = Callable[[Result], Result]


SERVED = {
    "dtype": "float32", "mode": "no_grad", "wrong": "no", "odd": "no", "weights": "torch", "signal": "drift",
    "split": "no",  # the last entry of chunks may be one that is thrown away
}  # fmt: skip


class Sabotaged:
    """Whole calls whose results are changed; every other draw decides so that sound cases lie between."""

    def __init__(self, change: Change, **fields: object):
        self.change, self.fields = change, fields

    def draw(self, choice: random.Random) -> Case:
        """As the target of LSTMs, in the surroundings in which the native core serves calls."""
        case = TARGET.draw(choice) | SERVED | self.fields
        return case | {"time": "no"} if case["time"] == "python head" else case

    def check(self, case: Case) -> Seen:
        """As the target of LSTMs."""
        plain = NativeRunner.run

        def run(runner: NativeRunner, batch: Batch) -> Result:
            return self.change(plain(runner, batch))

        with mock.patch.object(NativeRunner, "run", run):
            return TARGET.check(case)

    def simpler(self, case: Case) -> Iterable[Case]:
        """As the target of LSTMs."""
        return (c for c in TARGET.simpler(case) if c | self.fields == c)


def _off(result: Result) -> Result:
    result.y.view(-1)[-1] += 1e-3
    return result


def _miscounted(result: Result) -> Result:
    counted = result.counts
    if counted is None:
        return result

    def counts() -> object:
        found = counted()
        first = found.columns[0]
        return replace(found, columns=(first._replace(ran=first.ran + 1), *found.columns[1:]))

    return result._replace(counts=counts)  # type: ignore[arg-type]


OFF = Sabotaged(_off)
OFF_IN_INT8 = Sabotaged(_off, quantize="int8", delta="uniform")
MISCOUNTED = Sabotaged(_miscounted, delta="uniform")
SOUND = Sabotaged(lambda result: result)
