"""How long does a stacked LSTM take: torch, ONNX Runtime and OpenVINO against this runtime? Random weights, batch 1.

``python -m eval.latency`` runs all groups, ``--only`` some of them:
whole   100 steps in one call
stream  one step per call, state carried
delta   int8 with skipped columns: time against the share of columns that are computed (H >= 512)
tiny    Python overhead: one step of one layer, H = 16
zeros   unstructured zeros, and 2:4, against none (H >= 512)
batch   1, 8, 64, 256 sequences: the promise never to be slower than torch
blocks  how many rows of a large batch run together (native core alone)
Figures are medians of interleaved runs, ratios are paired within rounds; verdicts refer to the targets below.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.bench import format_seconds
from adaptive_lstm.peers import PEERS, Contender, Unavailable, build, build_adaptive
from eval.latency.blocks_time import blocks_time
from eval.latency.delta_time import delta_time
from eval.latency.zeros_time import zeros_time
from eval.shared import common
from eval.shared.contenders import SHAPES, STEPS, Shape, lineup, shape, stack
from eval.shared.targets import Result, Target, race_result

BATCHES = (1, 8, 64, 256)
DELTA_WIDTH = 512  # the least H at which columns and zeros are measured
TINY: Shape = (16, 16, 1)
TINY_SECONDS = 8e-6
MAX_FLOP = 5e11  # batches that take longer, some 10 s per call, are left out

CLOSER = {
    "int8, raw too": al.Quantize("int8", raw="int8"),
    "int8, raw too, bytes": al.Quantize("int8", raw="int8", levels=127, input_levels=127),
}
WHOLE_TARGETS = (
    Target("adaptive fp32", "torch", 1.3),
    Target("adaptive fp32", "ORT", 0.95),
    Target("adaptive int8", "ORT int8", 1.0),
    Target("adaptive int8, raw too", "ORT int8", 1.0),
)
STREAM_TARGETS = (
    Target("adaptive fp32", "torch", 10.0),
    Target("adaptive fp32", "ORT", 1.0),
    Target("adaptive int8", "ORT int8", 2.0, widths=(256,)),
    Target("adaptive int8", "ORT int8", 1.3, widths=(512,)),
    Target("adaptive int8, raw too", "ORT int8", 1.3, widths=(512,)),
)
BATCH_TARGETS = (Target("adaptive fp32", "torch", 0.97),)


def whole(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        contenders, unavailable = _contenders(stack(of), options)
        x = torch.randn(1, STEPS, of[0])
        timings = common.race({who.name: who.whole(x) for who in contenders}, quick=options.quick)
        yield race_result("whole", f"{of}: {STEPS} steps in one call", of, timings, WHOLE_TARGETS, unavailable)


def stream(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        contenders, unavailable = _contenders(stack(of), options)
        x = torch.randn(1, STEPS, of[0])
        timings = common.race({who.name: who.stream(x) for who in contenders}, quick=options.quick, prime=4)
        yield race_result("stream", f"{of}: one step per call", of, timings, STREAM_TARGETS, unavailable)


def delta(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        if of[1] >= DELTA_WIDTH:
            dense = build_adaptive(stack(of), "int8")
            yield from delta_time(dense, torch.randn(1, STEPS, of[0]), quick=options.quick)


def zeros(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        if of[1] >= DELTA_WIDTH:
            yield from zeros_time(stack(of), torch.randn(1, STEPS, of[0]), quick=options.quick)


def tiny(options: argparse.Namespace) -> Iterator[Result]:
    contenders, unavailable = _contenders(stack(TINY), options)
    x = torch.randn(1, STEPS, TINY[0])
    timings = common.race({who.name: who.stream(x) for who in contenders}, quick=options.quick, prime=4)
    result = race_result("tiny", f"{TINY}: one step per call, Python included", TINY, timings, (), unavailable)
    took = timings["adaptive fp32"].median
    answer = "PASS" if took <= TINY_SECONDS else "MISS"
    line = f"{answer}  adaptive fp32 takes {format_seconds(took)} (at most {format_seconds(TINY_SECONDS)})"
    yield Result({**result.record, "targets": [{"verdict": answer, "line": line}]}, f"{result.text}\n{line}")


def batch(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        lstm = stack(of)
        two = [*build(lstm, ["torch"], threads=options.threads)[0], build_adaptive(lstm)]
        for size in BATCHES:
            if 2 * size * STEPS * sum(p.numel() for p in lstm.parameters()) > MAX_FLOP:
                continue
            x = torch.randn(size, STEPS, of[0])
            timings = common.race({who.name: who.whole(x) for who in two}, quick=options.quick, seconds=8)
            yield race_result("batch", f"{of}: batch {size}", (*of, size), timings, BATCH_TARGETS)


def blocks(options: argparse.Namespace) -> Iterator[Result]:
    for of in options.shapes:
        yield from blocks_time(stack(of), STEPS, quick=options.quick)


def _contenders(lstm: nn.LSTM, options: argparse.Namespace) -> tuple[list[Contender], list[Unavailable]]:
    """The chosen peers, and ours twice more, closer to ORT int8: raw features in int8 too, and h in 8 bits.

    Closer, not equal: its activations share one scale, ours have one per raw feature and a fixed grid for h.
    """
    inputs = torch.randn(8, STEPS, lstm.input_size)
    more = [build_adaptive(lstm, settings, f"adaptive {name}", inputs) for name, settings in CLOSER.items()]
    return lineup(lstm, options.peers, threads=options.threads, more=more)


GROUPS: dict[str, Callable[[argparse.Namespace], Iterator[Result]]] = {
    "whole": whole,
    "stream": stream,
    "delta": delta,
    "zeros": zeros,
    "tiny": tiny,
    "batch": batch,
    "blocks": blocks,
}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", type=common.one_of(*GROUPS), default=tuple(GROUPS), help="groups, comma-separated")
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="I,H,L", help="stacks to measure")
    parser.add_argument("--peers", type=common.one_of(*PEERS), default=("torch", "ORT", "ORT int8"), help="see below")
    parser.epilog = f"peers: {', '.join(PEERS)}"
    options = parser.parse_args()
    verdicts: Counter[str] = Counter()
    with common.inference(options.threads):
        common.headline(options)
        for group in options.only:
            for result in GROUPS[group](options):
                print(json.dumps(result.record) if options.json else result.text, flush=True)
                common.save(options, "latency", [result.record])
                verdicts.update(target["verdict"] for target in result.record["targets"])
    if not options.json:
        print("\n" + ", ".join(f"{verdicts[name]} {name}" for name in ("PASS", "MISS", "OPEN", "n/a")))


if __name__ == "__main__":
    main()
