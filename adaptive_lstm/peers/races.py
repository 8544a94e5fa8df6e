"""How long the contenders take for real inputs: a whole sequence in one call, or one step of a stream, batch 1.

Only the LSTM is timed; what a model does around it is the same for all.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from time import perf_counter

from torch import Tensor, nn

from ..bench import Timing, measure
from ..runtime.lstm import AdaptiveLSTM
from ..runtime.stream import Stream, stream

MIN_ROUNDS, MAX_ROUNDS = 5, 40

Call = Callable[[], object]


def whole_sequences(lstms: Mapping[str, nn.LSTM], inputs: Tensor, *, seconds: float) -> dict[str, Timing]:
    """Seconds per sequence.

    lstms: name -> batch-first LSTM; inputs: [N, T, I], one call each; seconds: how long the race takes, about.
    """
    calls = {name: _sequence_call(lstm, inputs) for name, lstm in lstms.items()}
    return timed(calls, seconds=seconds, per_call=len(inputs))


def steps(lstms: Mapping[str, nn.LSTM], inputs: Tensor, *, seconds: float) -> dict[str, Timing]:
    """Seconds per step of a stream that begins afresh with every sequence; arguments as for `whole_sequences`."""
    with ExitStack() as streams:
        calls: dict[str, Call] = {}
        for name, lstm in lstms.items():
            if isinstance(lstm, AdaptiveLSTM):
                calls[name] = stream_call(streams.enter_context(stream(lstm, batch_size=1)), inputs)
            else:
                calls[name] = _torch_stream_call(lstm, inputs)
        return timed(calls, seconds=seconds, per_call=inputs.shape[0] * inputs.shape[1])


def _sequence_call(lstm: nn.LSTM, inputs: Tensor) -> Call:
    sequences = inputs.split(1)

    def call() -> None:
        for sequence in sequences:
            lstm(sequence)

    return call


def stream_call(session: Stream, inputs: Iterable[Tensor]) -> Call:
    """A call that steps through all sequences [T, I], each from a fresh start."""
    sequences = [[frame.contiguous() for frame in sequence.split(1)] for sequence in inputs]

    def call() -> None:
        for frames in sequences:
            session.reset()
            for frame in frames:
                session.step(frame)

    return call


def _torch_stream_call(lstm: nn.LSTM, inputs: Tensor) -> Call:
    """What users do without a stream: call the module with one step and carry (h, c)."""
    sequences = [sequence[None].split(1, dim=1) for sequence in inputs]

    def call() -> None:
        for frames in sequences:
            state = None
            for frame in frames:
                _, state = lstm(frame, state)

    return call


def timed(calls: Mapping[str, Call], *, seconds: float, per_call: int) -> dict[str, Timing]:
    """Timings divided by `per_call`, the equal things that a call does, over as many rounds as fit into `seconds`."""
    start = perf_counter()
    for call in calls.values():
        call()
    rounds = int(seconds / (perf_counter() - start))
    timings = measure(calls, repeats=max(MIN_ROUNDS, min(MAX_ROUNDS, rounds)), warmup=1)
    return {name: timing.per(per_call) for name, timing in timings.items()}
