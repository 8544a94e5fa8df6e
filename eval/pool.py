"""What does a pool of streams cost beside the bare batched step, and does its time follow the rows that truly run?

``python -m eval.pool --zoo PATH``:

tick       random weights; a tick of a pool in which every stream has a frame, given by ``push_each``, against one step
           of a stream of as many rows: outputs written into one array (``tick_into``), and as a dictionary
           (``tick``); and a tick of twice as many streams of which every other one has a frame, drawn anew each time
certified  real recordings as streams, a policy of holding and leaving alone that ``al.calibrate`` certified; every row
           of the pool is one recording after the other, dropped once its stream is done. Share of the time of the same
           recordings with nothing skipped, and share of their multiply-accumulates
held       the same with a policy of holding timesteps, whatever it costs in quality. A row that holds its state leaves
           the step; one that holds its gates still runs its cell, which counts no multiply-accumulate
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
from eval.zoo.material import Material

Record = dict[str, Any]
Call = Callable[[], object]
Mode = Literal["hold_gates", "hold_state"]

SHAPES: tuple[Shape, ...] = ((40, 256, 3), (128, 128, 2))
ROWS = (256, 1024)  # 1024: about what one core serves at 100 frames a second
PRECISIONS: tuple[Literal["fp32", "int8"], ...] = ("fp32", "int8")
MOST = 1.10  # times the bare batched step
CONFIDENCE = 0.95
SLACK = 0.10  # by how much the share of the time may exceed that of the work
FRAMES = 16  # different inputs, in a circle
GROUPS = ("tick", "certified", "held")
MODELS, SEATS, ROUNDS = ("fsdd-digits", "fsdd-speakers"), 256, 5
HELD: tuple[tuple[Mode, float], ...] = (("hold_state", 0.25), ("hold_state", 0.5), ("hold_gates", 0.5))  # and x_share
SERVED = frozenset({"hold", "time_exit"})  # decisions by which a row leaves the batch


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
        "bare": common.in_turn(bare.step, list(frames)),
        "arrays": common.in_turn(arrays, list(frames)),
        "dictionary": common.in_turn(mapping, list(frames)),
        "every other": common.in_turn(half, drawn),
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


def served(lstm: al.AdaptiveLSTM, streams: Sequence[torch.Tensor]) -> tuple[float, al.RunStats]:
    """Streams [T, I] through a pool, each left once it is done: seconds in the pool, and statistics."""
    pool, waiting = al.StreamPool(lstm, SEATS, backlog=1), list(streams[::-1])
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
            ids, x = [stream for stream, _ in frames], torch.stack([frame for _, frame in frames])
            begin = time.perf_counter()
            pool.push_each(ids, x)
            pool.tick_into(y)
            seconds += time.perf_counter() - begin
    return seconds, pool.stats


def certified(model: ZooModel, options: argparse.Namespace) -> Record:
    """Calibrate a model on holding and leaving alone, and serve recordings with and without."""
    material, fast = model.prepared(quick=options.quick), al.adapt(model.model)
    al.compress(fast, quantize=al.Quantize("int8"))
    families = [family for family in material.families(fast) if family.kind.decision in SERVED]
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
    result.apply(fast, force=True)  # what loses time must show
    (lstm,) = (m for m in fast.modules() if isinstance(m, al.AdaptiveLSTM))
    about = {"certified": result.certified, "policy": result.certificate.policy}
    return {"group": "certified", "case": model.name, **about, **shares(lstm, recordings(material), options)}


def held(model: ZooModel, options: argparse.Namespace) -> Iterator[Record]:
    """Serve the same recordings with timesteps held, for several settings."""
    streams = recordings(model.prepared(quick=options.quick))
    for mode, x_share in HELD:
        lstm = al.AdaptiveLSTM.from_lstm(_lstm_of(model.model)).eval()
        lstm.quantize, lstm.policy = al.Quantize("int8"), al.SkipTimesteps(x_share=x_share, mode=mode)
        about = {"certified": False, "policy": f"{mode} {x_share}"}
        case = f"{model.name}, {mode} {x_share}"
        yield {"group": "held", "case": case, **about, **shares(lstm, streams, options)}


def recordings(material: Material) -> list[torch.Tensor]:
    """Streams [T, I] that no policy was chosen by."""
    return [x[0] for x in (*material.test, *material.fresh)]


def shares(lstm: al.AdaptiveLSTM, streams: Sequence[torch.Tensor], options: argparse.Namespace) -> Record:
    """Time and work of a pool with a policy, as shares of those with nothing skipped."""
    dense = al.AdaptiveLSTM.from_lstm(lstm).eval()
    dense.quantize, dense.policy = lstm.quantize, al.Dense()
    seconds: list[tuple[float, float]] = []
    for _ in range(1 if options.quick else ROUNDS):
        (with_policy, stats), (without, all_stats) = served(lstm, streams), served(dense, streams)
        seconds.append((with_policy, without))
    times = sorted(a / b for a, b in seconds)
    return {
        "work": stats.macs / all_stats.macs,
        "frames": stats.timesteps / all_stats.timesteps,
        "time": times[len(times) // 2],
        "times": times,
        "streams": len(streams),
        "seats": SEATS,
        "slack": SLACK,
    }


def _lstm_of(model: nn.Module) -> nn.LSTM:
    (lstm,) = (m for m in model.modules() if isinstance(m, nn.LSTM))
    return lstm


def tick_row(r: Record) -> list[str]:
    """A record of ``ticks`` as cells of the table."""
    medians = [r["ratios"][name]["median"] for name in ("arrays", "dictionary", "every other")]
    return [r["case"], *("n/a" if m is None else f"{m:.3f}" for m in medians), verdict(r)]


def verdict(r: common.Record) -> str:
    """Of outputs in an array over the bare step, or of the share of the time over that of the work."""
    if r["group"] != "tick":
        return "PASS" if r["time"] <= r["work"] + r["slack"] else "MISS"
    median = r["ratios"]["arrays"]["median"]
    return "n/a" if median is None else "PASS" if median <= r["most"] else "MISS"


def show(records: Sequence[Record]) -> None:
    """The tables."""
    header = ["stack (I, H, L)", "arrays", "dictionary", "every other stream", "verdict"]
    rows = [tick_row(r) for r in records if r["group"] == "tick"]
    if rows:
        print(common.table("A tick of a pool, over the bare batched step", header, rows))
    rows = [
        [r["case"], r["policy"], f"{r['work']:.2f}", f"{r['time']:.2f}", verdict(r)]
        for r in records
        if r["group"] != "tick"
    ]
    if rows:
        print(common.table("Holding and leaving", ["model", "policy", "work", "time", "verdict"], rows))


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    common.add_zoo_options(parser, MODELS, MODELS)
    parser.add_argument("--only", type=common.one_of(*GROUPS), default=GROUPS, help="questions")
    options = parser.parse_args(argv)
    with common.inference(options.threads):
        common.headline(options)
        records = list(ticks(options)) if "tick" in options.only else []
        models = zoo.with_material(options.models, options.zoo) if {"certified", "held"} & {*options.only} else ()
        for model in models:
            records += [certified(model, options)] if "certified" in options.only else []
            records += held(model, options) if "held" in options.only else []
    common.save(options, "pool", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
    else:
        show(records)


if __name__ == "__main__":
    main()
