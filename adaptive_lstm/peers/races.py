"""Time contenders on real inputs, batch 1: a whole sequence in one call, or one step of a stream.

All contenders run interleaved in one process, see ``adaptive_lstm.bench``. Gradients must be off around the call.
"""

from collections.abc import Callable, Iterable, Sequence
from time import perf_counter

from torch import Tensor

from ..bench import Timing, measure
from .contender import Call, Contender

MIN_ROUNDS, MAX_ROUNDS = 5, 40


def time_sequences(contenders: Iterable[Contender], inputs: Sequence[Tensor], *, seconds: float) -> dict[str, Timing]:
    """Seconds per sequence, each in one call from the zero state.

    Args:
        contenders: with names of their own.
        inputs: sequences [1, T, I]; all of them are one sample.
        seconds: how long all of it takes, about.

    Returns:
        name -> timing, in the order of ``contenders``.
    """
    return _race(contenders, inputs, lambda who, x: who.whole(x), parts=len(inputs), seconds=seconds)


def time_steps(contenders: Iterable[Contender], inputs: Sequence[Tensor], *, seconds: float) -> dict[str, Timing]:
    """Seconds per timestep of streams that start from the zero state with every sequence; as ``time_sequences``."""
    parts = sum(x.shape[1] for x in inputs)
    return _race(contenders, inputs, lambda who, x: who.steps(x), parts=parts, seconds=seconds)


def _race(
    contenders: Iterable[Contender],
    inputs: Sequence[Tensor],
    how: Callable[[Contender, Tensor], Call],
    *,
    parts: int,
    seconds: float,
) -> dict[str, Timing]:
    """Timings divided by ``parts``, over as many rounds as fit into ``seconds``."""
    calls = {who.name: _one_after_the_other([how(who, x) for x in inputs]) for who in contenders}
    start = perf_counter()
    for call in calls.values():
        call()
    rounds = int(seconds / (perf_counter() - start))
    timings = measure(calls, repeats=max(MIN_ROUNDS, min(MAX_ROUNDS, rounds)), warmup=1)
    return {name: timing.per(parts) for name, timing in timings.items()}


def _one_after_the_other(calls: Sequence[Call]) -> Call:
    def run() -> None:
        for call in calls:
            call()

    return run
