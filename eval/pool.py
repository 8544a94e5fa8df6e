"""What does a pool of streams cost beside the bare batched step, and does its time follow the rows that truly run?

``python -m eval.pool --zoo PATH``:

tick       random weights; a tick of a pool in which every stream has a frame, given by ``push_each``, against one step
           of a stream of as many rows: outputs written into one array (``tick_into``), and as a dictionary
           (``tick``); and a tick of twice as many streams of which every other one has a frame, drawn anew each time
certified  real recordings as streams, a policy of holding and leaving alone that ``al.calibrate`` certified; every row
           of the pool is one recording after the other, dropped once its stream is done. Share of the time of the same
           recordings with nothing skipped, and share of their multiply-accumulates
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import ratio
from eval import zoo
from eval.shared import common
from eval.shared.contenders import Shape, stack
from eval.zoo.base import ZooModel

SHAPES: tuple[Shape, ...] = ((40, 256, 3), (128, 128, 2))
ROWS = (256, 1024)  # 1024: about what one core serves at 100 frames a second
PRECISIONS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
MOST = 1.10  # times the bare batched step
CONFIDENCE = 0.95
SLACK = 0.10  # by how much the share of the time may exceed that of the work
FRAMES = 16  # different inputs, in a circle
GROUPS = ("tick", "certified")
MODELS, SEATS, ROUNDS = ("fsdd-digits", "fsdd-speakers"), 256, 5

Record = dict[str, Any]
Call = Callable[[], object]


def in_turn(call: Callable[[Any], object], arguments: Sequence[Any]) -> Call:
    """A call with one argument after the other, in a circle."""
    at = 0

    def one() -> object:
        nonlocal at
        at = (at + 1) % len(arguments)
        return call(arguments[at])

    return one


def calls(lstm: al.AdaptiveLSTM, rows: int) -> dict[str, Call]:
    """A step of so many rows in every way."""
    frames = torch.randn(FRAMES, rows, lstm.input_size)
    bare, y = al.stream(lstm, rows), torch.empty(rows, lstm.hidden_size)
    pools = [al.StreamPool(lstm, size, backlog=2) for size in (rows, rows, 2 * rows)]
    ids = [[pool.open() for _ in range(n)] for pool, n in zip(pools, (rows, rows, 2 * rows), strict=True)]
    drawn = [(sorted(torch.randperm(2 * rows)[:rows].tolist()), x) for x in frames]

    def arrays(x: torch.Tensor) -> None:
        pools[0].push_each(ids[0], x)
        pools[0].tick_into(y)

    def mapping(x: torch.Tensor) -> None:
        pools[1].push_each(ids[1], x)
        pools[1].tick()

    def half(drawn: tuple[list[int], torch.Tensor]) -> None:
        some, x = drawn
        pools[2].push_each([ids[2][i] for i in some], x)
        pools[2].tick_into(y)

    return {
        "bare": in_turn(bare.step, list(frames)),
        "arrays": in_turn(arrays, list(frames)),
        "dictionary": in_turn(mapping, list(frames)),
        "every other": in_turn(half, drawn),
    }


def ticks(options: argparse.Namespace) -> Iterator[Record]:
    """A record per stack, precision and number of rows."""
    for of in SHAPES:
        for precision in PRECISIONS:
            lstm = al.AdaptiveLSTM.from_lstm(stack(of)).eval()
            lstm.quantize = al.Quantize(precision)
            for rows in ROWS:
                timings = common.race(calls(lstm, rows), quick=options.quick, seconds=5)
                found = {name: ratio(timings[name], timings["bare"]) for name in timings if name != "bare"}
                yield {
                    "group": "tick",
                    "case": f"{of} {precision}, {rows} streams",
                    "most": MOST,
                    "ratios": {name: one.as_dict() for name, one in found.items()},
                    "seconds": {name: one.as_dict() for name, one in timings.items()},
                }


def served(lstm: al.AdaptiveLSTM, recordings: Sequence[torch.Tensor]) -> tuple[float, al.RunStats]:
    """Recordings [T, I] through a pool, each stream left once it is done: seconds in the pool, and statistics."""
    pool, waiting = al.StreamPool(lstm, SEATS, backlog=1), list(recordings[::-1])
    running: dict[int, Iterator[torch.Tensor]] = {}
    y = torch.empty(SEATS, lstm.hidden_size)
    seconds = 0.0
    while waiting or running:
        while waiting and len(running) < SEATS:
            running[pool.open()] = iter(waiting.pop())
        frames, ended = [], []
        for stream, rest in running.items():
            frame = None if pool.stream_stats(stream).done else next(rest, None)
            if frame is None:
                ended.append(stream)
            else:
                frames.append((stream, frame))
        for stream in ended:
            pool.close(stream)
            del running[stream]
        if frames:
            streams, x = [stream for stream, _ in frames], torch.stack([frame for _, frame in frames])
            begin = time.perf_counter()
            pool.push_each(streams, x)
            pool.tick_into(y)
            seconds += time.perf_counter() - begin
    return seconds, pool.stats


def certified(model: ZooModel, options: argparse.Namespace) -> Record:
    """Calibrate a model on holding and leaving alone, and serve recordings with and without."""
    material, fast = model.prepared(quick=options.quick), al.adapt(model.model)
    al.compress(fast, quantize=al.Quantize("int8"))
    families = [al.Family(al.SkipTimesteps), al.Family(al.HoldLayers)]
    families.append(al.Family(al.ExitInTime, head=fast.get_submodule("fc")))
    result = al.calibrate(
        fast,
        material.splits,
        loss=material.loss,
        max_loss=material.max_loss,
        confidence=CONFIDENCE,
        policies=families,
        objective="macs",
        progress=False,
    )
    result.apply(fast)
    (lstm,) = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
    recordings = [x[0] for x in (*material.test, *material.fresh)]
    dense = al.AdaptiveLSTM.from_lstm(_lstm_of(model.model)).eval()
    dense.quantize = lstm.quantize
    seconds: list[tuple[float, float]] = []
    for _ in range(1 if options.quick else ROUNDS):
        (with_policy, stats), (without, all_stats) = served(lstm, recordings), served(dense, recordings)
        seconds.append((with_policy, without))
    times = sorted(a / b for a, b in seconds)
    return {
        "group": "certified",
        "case": model.name,
        "certified": result.certified,
        "policy": result.certificate.policy,
        "work": stats.macs / all_stats.macs,
        "frames": stats.timesteps / all_stats.timesteps,
        "time": times[len(times) // 2],
        "times": times,
        "streams": len(recordings),
        "seats": SEATS,
        "slack": SLACK,
    }


def _lstm_of(model: nn.Module) -> nn.LSTM:
    (lstm,) = (m for m in model.modules() if isinstance(m, nn.LSTM))
    return lstm


def tick_row(r: Record) -> list[str]:
    """A record of ``ticks`` as cells of the table."""
    medians = [r["ratios"][name]["median"] for name in ("arrays", "dictionary", "every other")]
    return [r["case"], *("n/a" if m is None else f"{m:.3f}" for m in medians)]


def show(records: Sequence[Record]) -> None:
    """The tables."""
    header = ["stack (I, H, L)", "arrays", "dictionary", "every other stream"]
    rows = [tick_row(r) for r in records if r["group"] == "tick"]
    if rows:
        print(common.table("A tick of a pool, over the bare batched step", header, rows))
    shares = [
        [r["case"], r["policy"], f"{r['work']:.2f}", f"{r['time']:.2f}"] for r in records if r["group"] == "certified"
    ]
    if shares:
        print(common.table("Certified holding and leaving", ["model", "policy", "work", "time"], shares))


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, MODELS, MODELS)
    parser.add_argument("--only", type=common.one_of(*GROUPS), default=GROUPS, help="questions")
    options = parser.parse_args(argv)
    with common.inference(options.threads):
        common.headline(options)
        records = list(ticks(options)) if "tick" in options.only else []
        models = zoo.with_material(options.models, options.zoo) if "certified" in options.only else ()
        records += [certified(model, options) for model in models]
    common.save(options, "pool", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
    else:
        show(records)


if __name__ == "__main__":
    main()
