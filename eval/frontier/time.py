"""How long contenders take on a model's real inputs, batch 1, in three uses.

whole  a whole sequence: the calls of all LSTMs, on the inputs that reach them in the model
model  the whole model, from its input to its output
step   one timestep of a stream: a call of every LSTM with its state carried on, where a model can be streamed
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptive_lstm import AdaptiveLSTM, peers
from adaptive_lstm.bench import Timing
from adaptive_lstm.peers.contender import Call
from adaptive_lstm.peers.drop_in import DropInPeer
from eval.frontier.field import Entry, lstms_of
from eval.shared import common
from eval.zoo.base import ZooModel, spread

USES = ("whole", "model", "step")
TIMED = 6  # inputs in one timed call
STEPS = 320  # timesteps in one timed call, about
SECONDS = 15.0  # for each use
REVERSING = frozenset({"chemnet"})  # one direction, but the model reverses the sequence, so it cannot be streamed


def streams(model: ZooModel) -> bool:
    """Whether a model can be run timestep by timestep."""
    return model.name not in REVERSING and not any(lstm.bidirectional for lstm in lstms_of(model.model).values())


def timed(model: ZooModel, entries: Sequence[Entry], *, quick: bool) -> dict[str, dict[str, Timing]]:
    """Use -> contender -> seconds per sequence, or per timestep; all contenders that fit a use, interleaved."""
    inputs = list(spread(list(model.inputs), min(TIMED, len(model.inputs))))
    reached = peers.inputs_of_lstms(model.model, inputs)
    uses: dict[str, tuple[dict[str, Call], int]] = {
        "whole": ({e.name: each(e, reached, whole) for e in entries}, len(inputs)),
        "model": ({e.name: _over(e.model, inputs) for e in entries}, len(inputs)),
    }
    if streams(model):
        few = {name: first_steps(sequences, STEPS) for name, sequences in reached.items()}
        steps = max(sum(x.shape[1] for x in sequences) for sequences in few.values())
        uses["step"] = ({e.name: each(e, few, stepwise) for e in entries if e.streams}, steps)
    found = {}
    for use, (calls, parts) in uses.items():
        raced = common.race(calls, quick=quick, seconds=SECONDS)
        found[use] = {name: timing.per(parts) for name, timing in raced.items()}
    return found


def whole(lstm: nn.Module, sequences: Sequence[Tensor]) -> Call:
    """Every sequence in one call."""
    if isinstance(lstm, DropInPeer):
        run, zeros = lstm.engine.forward, _zeros(lstm)
        feeds = [lstm.engine.native(x) for x in sequences]
        return lambda: [run(x, *zeros) for x in feeds]
    return lambda: [lstm(x) for x in sequences]


def stepwise(lstm: nn.Module, sequences: Sequence[Tensor]) -> Call:
    """Every sequence step by step, from the zero state; arrays of other runtimes are made outside the clock."""
    if isinstance(lstm, DropInPeer):
        run, zeros = lstm.engine.forward, _zeros(lstm)
        fed = [[lstm.engine.native(frame) for frame in x.split(1, dim=1)] for x in sequences]

        def call() -> None:
            for frames in fed:
                h, c = zeros
                for frame in frames:
                    _, h, c = run(frame, h, c)

        return call
    assert isinstance(lstm, AdaptiveLSTM)
    ours = peers.Adaptive("ours", lstm.quantize.precision, lstm)
    steps = [ours.steps(x) for x in sequences]
    return lambda: [step() for step in steps]


def _zeros(lstm: DropInPeer) -> tuple[Any, Any]:
    rows = lstm.num_layers * (1 + lstm.bidirectional)
    sizes = (lstm.proj_size or lstm.hidden_size, lstm.hidden_size)
    h, c = (lstm.engine.native(torch.zeros(rows, 1, size)) for size in sizes)
    return h, c


def each(entry: Entry, given: dict[str, list[Tensor]], how: Callable[[nn.Module, Sequence[Tensor]], Call]) -> Call:
    """All LSTMs of a contender, one after the other."""
    calls = [how(lstm, given[name]) for name, lstm in zip(given, entry.lstms(given), strict=True)]

    def run() -> None:
        for call in calls:
            call()

    return run


def _over(model: nn.Module, inputs: Sequence[Tensor]) -> Call:
    return lambda: [model(x) for x in inputs]


def first_steps(sequences: list[Tensor], steps: int) -> list[Tensor]:
    """The first sequences, cut at a total of so many timesteps; at least one."""
    taken, total = list[Tensor](), 0
    for x in sequences:
        if total >= steps:
            break
        taken.append(x[:, : max(1, steps - total)])
        total += taken[-1].shape[1]
    return taken
