"""What does splitting long sequences in time save on real models, and what does it change?

``python -m eval.split_time --zoo PATH``: real inputs of a model joined to one sequence of at least T timesteps, batch
1; the LSTMs alone are timed, each with what it is given there. For several chunks and warm-ups:

- speed: time of the same LSTMs in sequence on one thread over that with ``SplitTime`` on ``--threads``, in one race;
- distance of the model's outputs from those in sequence, in the same precision;
- residual: the largest at any seam; extra: share of timesteps that ran in addition.

``rows`` is the time of a timestep of one row over that of a row among ROWS, on the same stack, input and thread: what
splitting could save at the most on one. The verdict is of the fastest setting whose distance is at most NEAR.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from typing import Any, Literal

import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import ratio
from adaptive_lstm.cli.demo.run import int8
from adaptive_lstm.runtime.adapt import adapted_lstms
from adaptive_lstm.runtime.call import Call
from eval import zoo
from eval.shared import common
from eval.zoo.base import ZooModel, first

MODELS = ("nnsplit-en", "charrnn-darwin", "pjm", "arabic", "resemblyzer")  # the last one remembers long
PRECISIONS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
TIMESTEPS = 2048  # of what the model is given; NNSplit's LSTMs run on half of them
CHUNKS, WARM_UPS = (128, 256), (16, 32, 64)
ROWS = 16
SECONDS = 8.0  # of timing per model and precision
NEAR = 0.01  # distance of a setting that could be certified
GOALS: Mapping[int, float] = {1: 1.7, 2: 3.0}  # times as fast, by threads, in int8
FORGET = MODELS[:4]  # models of which this is expected
MOST_AT_ONCE = 400  # timesteps that the attention of the diacritizer looks at


def long_input(model: ZooModel) -> Tensor:
    """Its real inputs [1, T, ...] one after the other, as far as needed."""
    joined = torch.cat(list(model.inputs), dim=1)
    return joined[:, : TIMESTEPS * (2 if model.name.startswith("nnsplit") else 1)]


def given(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each LSTM of an adapted model is given in a call with x."""
    found: dict[str, Tensor] = {}

    def keeping(name: str) -> Callable[[Call], None]:
        return lambda made: found.__setitem__(name, made.input.clone())

    with ExitStack() as watched:
        for name, lstm in adapted_lstms(model).items():
            watched.enter_context(lstm.watched_by(keeping(name)))
        model(x)
    return found


def under(model: nn.Module, policy: al.Policy) -> Mapping[str, al.AdaptiveLSTM]:
    """Copies of its LSTMs with a policy."""
    out = {}
    for name, lstm in adapted_lstms(model).items():
        out[name] = al.AdaptiveLSTM.from_lstm(lstm)
        out[name].plan = replace(lstm.plan, policy=policy)
    return out


def examine(model: ZooModel, precision: Literal["fp32", "int8"], threads: int, *, quick: bool) -> dict[str, Any]:
    """The record of one model in one precision."""
    fast, x = int8(model.model) if precision == "int8" else al.adapt(model.model), long_input(model)
    inputs = given(fast, x)
    settings = {
        f"chunks of {chunk}, warm-up {warm_up}": al.SplitTime(chunk=chunk, warm_up=warm_up)
        for chunk in CHUNKS
        for warm_up in WARM_UPS
    }
    lineup = {"in sequence": under(fast, al.Dense())} | {name: under(fast, p) for name, p in settings.items()}
    rows = {name: _rows(one) for name, one in inputs.items()}

    def calls(lstms: Mapping[str, al.AdaptiveLSTM], of: Mapping[str, Tensor], on: int) -> Callable[[], None]:
        def run() -> None:
            al.set_num_threads(on)
            for name, lstm in lstms.items():
                lstm(of[name])

        return run

    contenders = {name: calls(lstms, inputs, threads) for name, lstms in lineup.items()}
    contenders["in sequence"] = calls(lineup["in sequence"], inputs, 1)
    contenders["rows"] = calls(lineup["in sequence"], rows, 1)
    try:
        timings = common.race(contenders, quick=quick, seconds=SECONDS)
    finally:
        al.set_num_threads(None)
    want = _outputs(fast, x, al.Dense())
    judged = []
    for name, policy in settings.items():
        outputs = _outputs(fast, x, policy)
        seams = [lstm.last_run.seams for lstm in adapted_lstms(fast).values() if lstm.last_run is not None]
        ran = sum(sum(s.extra) / max(len(s.extra), 1) for s in seams) / sum(one.shape[1] for one in inputs.values())
        judged.append(
            {
                "setting": name,
                "speed": ratio(timings["in sequence"], timings[name]).as_dict(),
                "distance": model.distance.between(outputs, want),
                "residual": max(s.residual for s in seams),
                "extra": ran,
            }
        )
    return {
        "group": model.name,
        "case": f"{precision}, {threads} thread(s)",
        "precision": precision,
        "threads": threads,
        "timesteps": {name: one.shape[1] for name, one in inputs.items()},
        "distance": model.distance.name,
        "rows": ratio(timings["in sequence"], timings["rows"]).as_dict(),
        "seconds": timings["in sequence"].as_dict(),
        "judged": judged,
        "goal": GOALS.get(threads) if precision == "int8" and model.name in FORGET else None,
    }


def verdict(record: Mapping[str, Any]) -> str:
    """PASS or MISS of a record that has a goal, by the fastest of the settings that are near enough."""
    if record["goal"] is None:
        return ""
    speeds = [j["speed"] for j in record["judged"] if j["distance"] <= NEAR]
    if any(speed["median"] is None for speed in speeds):
        return "n/a"
    return "PASS" if max((speed["median"] for speed in speeds), default=-inf) >= record["goal"] else "MISS"


def _rows(x: Tensor) -> Tensor:
    """The same timesteps as ROWS rows [ROWS, T / ROWS, I]."""
    steps = x.shape[1] // ROWS
    return x[:, : ROWS * steps].reshape(ROWS, steps, -1).contiguous()


def _outputs(model: nn.Module, x: Tensor, policy: al.Policy) -> Tensor:
    for lstm in adapted_lstms(model).values():
        lstm.policy = policy
    if isinstance(attention := getattr(model, "attention", None), nn.Module):  # which takes time and memory by T x T
        states = first(model.lstm(model.embedding(x)))  # type: ignore[operator]
        return torch.cat([model.classifier(attention(s)) for s in states.split(MOST_AT_ONCE, 1)], 1)  # type: ignore[operator]
    return first(model(x))


def as_text(record: dict[str, Any]) -> str:
    """The record as a table."""
    header = ["setting", "times as fast", "quartiles", "distance", "residual", "extra"]
    rows = [
        [
            j["setting"],
            f"{j['speed']['median'] or float('nan'):.2f}",
            f"{j['speed']['p25']:.2f} to {j['speed']['p75']:.2f}",
            f"{j['distance']:.5f}",
            f"{j['residual']:.4f}",
            f"{j['extra']:.0%}",
        ]
        for j in record["judged"]
    ]
    most = record["rows"]["median"] or float("nan")
    title = f"{record['group']}, {record['case']}; {ROWS} rows would be {most:.2f} times as fast; {record['distance']}"
    judged = "" if record["goal"] is None else f"\n{verdict(record)}  {record['goal']:g} times as fast"
    return common.table(title, header, rows) + judged


def main(arguments: list[str] | None = None) -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, zoo.NAMES, MODELS)
    parser.add_argument("--only", type=common.one_of(*PRECISIONS), default=PRECISIONS, help="precisions")
    options: argparse.Namespace = parser.parse_args(arguments)
    with common.inference(options.threads):
        common.headline(options)
        for name in options.models:
            for precision in options.only:
                record = examine(zoo.load(name, options.zoo), precision, options.threads, quick=options.quick)
                print(json.dumps(record) if options.json else as_text(record), flush=True)
                common.save(options, "split_time", [record])


if __name__ == "__main__":
    main()
