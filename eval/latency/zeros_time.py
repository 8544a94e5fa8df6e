"""Does unstructured sparsity save time? The same stack with more and more zeros: part of ``eval.latency``.

Random weights and inputs. In every precision a stack without zeros runs beside stacks with a share of zeros at random
places, and beside one with 2:4; dense, and with delta thresholds at which every operand sends half of its columns.
Times are compared with the stack without zeros; the form is that in which the last recurrent matrix was executed.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds, ratio
from adaptive_lstm.peers import Adaptive, build_adaptive
from adaptive_lstm.weights.precision import Precision
from eval.latency.delta_time import find_thresholds
from eval.shared.common import race, table
from eval.shared.targets import Result, brief, record

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
SENT = 0.5


def anywhere(share: float) -> Callable[[Tensor], Tensor]:
    """Set a share of the weights to zero at random places."""
    return lambda w: w * (torch.rand_like(w) >= share)


def two_of_four(w: Tensor) -> Tensor:
    """Keep the two largest of every four weights of a row."""
    fours = w.reshape(len(w), -1, 4)
    kept = torch.zeros_like(fours).scatter(-1, fours.abs().topk(2).indices, 1)
    return torch.flatten(fours * kept, 1)


PATTERNS: dict[str, Callable[[Tensor], Tensor]] = {
    "no zeros": lambda w: w,
    "50%": anywhere(0.5),
    "2:4": two_of_four,
    "70%": anywhere(0.7),
}


def zeros_time(lstm: nn.LSTM, x: Tensor, *, quick: bool) -> Iterator[Result]:
    """x: [1, T, I]. By precision: streamed, streamed with delta, and as a whole sequence."""
    for precision in PRECISIONS:
        dense = {name: build_adaptive(_with_zeros(lstm, keep), precision, name) for name, keep in PATTERNS.items()}
        yield _race(f"{precision}, one step per call", dense, x, streams=True, quick=quick)
        yield _race(f"{precision}, {x.shape[1]} steps in one call", dense, x, streams=False, quick=quick)
        some = {name: _skipping(who, x) for name, who in dense.items()}
        yield _race(f"{precision} + delta {SENT:.0%}, one step per call", some, x, streams=True, quick=quick)


def _with_zeros(lstm: nn.LSTM, keep: Callable[[Tensor], Tensor]) -> nn.LSTM:
    out = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, batch_first=True).eval()
    out.load_state_dict({k: keep(w) if k.startswith("weight") else w for k, w in lstm.state_dict().items()})
    return out


def _skipping(dense: Adaptive, x: Tensor) -> Adaptive:
    thresholds = find_thresholds(dense, x, SENT)
    fast = al.AdaptiveLSTM.from_lstm(dense.lstm)
    fast.policy = al.Delta(x=tuple(thresholds[::2]), h=tuple(thresholds[1::2]))
    return Adaptive(dense.name, dense.precision, fast)


def _race(mode: str, lineup: dict[str, Adaptive], x: Tensor, *, streams: bool, quick: bool) -> Result:
    calls = {name: who.stream(x) if streams else who.whole(x) for name, who in lineup.items()}
    timings = race(calls, quick=quick, prime=8 * int(streams))
    rows, speeds = [], []
    for name, timing in timings.items():
        speed, form = ratio(timings["no zeros"], timing), al.report(lineup[name].lstm).matrices[-1].form
        speeds.append({"verdict": "n/a", "who": name, "form": form, "speed": speed.as_dict()})
        rows.append([name, str(form), format_seconds(timing.median), brief(speed)])
    lstm = lineup["no zeros"].lstm
    case = f"({lstm.input_size}, {lstm.hidden_size}, {lstm.num_layers}) {mode}"
    return Result(record("zeros", case, timings, speeds), table(case, ["zeros", "form", "median", "speed"], rows))
