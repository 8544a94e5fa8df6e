"""The contenders on one random stack, each verified before it is timed: the start of every latency question."""

import argparse
import json
from collections.abc import Iterable, Sequence

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.peers import Adaptive, Contender, Unavailable, build, build_adaptive, verify_contenders
from eval.latency.delta_time import find_thresholds
from eval.shared import common

Shape = tuple[int, int, int]  # I, H, L

SHAPES: tuple[Shape, ...] = ((40, 256, 3), (128, 128, 2), (512, 512, 3), (1024, 1024, 3))
STEPS = 100
CALIBRATED = 8  # sequences for peers that calibrate
CHECKED = 20  # timesteps
# As the int8 of other runtimes: every matrix, with a range per timestep. 64 levels are multiplied as bytes everywhere.
BYTES = al.Quantize("int8", raw="int8", raw_range="dynamic", raw_levels=64, levels=64, input_levels=64)
SENT = 0.5  # share of the columns that "int8 + delta" sends; real models need about half to keep their quality


def shape(text: str) -> Shape:
    """argparse type: I,H,L."""
    parts = [common.positive(part) for part in text.split(",")]
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"expected I,H,L such as 40,256,3, got {text!r}")
    return parts[0], parts[1], parts[2]


def stack(of: Shape) -> nn.LSTM:
    """A stack with torch's random weights."""
    inputs, hidden, layers = of
    return nn.LSTM(inputs, hidden, layers, batch_first=True).eval()


def lineup(
    lstm: nn.LSTM, peers: Iterable[str], *, threads: int, more: Iterable[Adaptive] = ()
) -> tuple[list[Contender], list[Unavailable]]:
    """The named peers, then ours in fp32, int8 and ``more``; a peer with a wrong result is left out, with the reason.

    Raises:
        RuntimeError: one of ours has a wrong result: a bug, so nothing is measured.
    """
    calibration = list(torch.randn(CALIBRATED, STEPS, lstm.input_size).split(1))
    present, unavailable = build(lstm, peers, threads=threads, inputs=calibration)
    ours = [build_adaptive(lstm), build_adaptive(lstm, "int8"), *more]
    found = verify_contenders([*present, *ours], lstm, torch.randn(1, CHECKED, lstm.input_size))
    if bugs := [one for one in found.excluded if one.name in {who.name for who in ours}]:
        raise RuntimeError(f"this project's own runtime is wrong, nothing is timed: {bugs}")
    return found.verified, unavailable + found.excluded


def skipping(lstm: nn.LSTM, x: torch.Tensor, share: float = SENT) -> Adaptive:
    """Ours in int8 with thresholds at which every operand of every layer sends this share of its columns of x.

    ``eval.quality`` measures the cost of skipping on real models; random weights have no quality to lose.
    """
    dense = build_adaptive(lstm, "int8")
    thresholds = find_thresholds(dense, x, share)
    fast = al.AdaptiveLSTM.from_lstm(dense.lstm)
    fast.policy = al.Delta(x=tuple(thresholds[::2]), h=tuple(thresholds[1::2]))
    return Adaptive(f"int8 + delta {share:.0%}", "int8", fast)


def described(who: Contender, of: Shape, *, batch: int, threads: int) -> dict[str, object]:
    """The fields of a record that name the contender and the case."""
    inputs, hidden, layers = of
    whose = {"contender": who.name, "precision": who.precision, "ours": isinstance(who, Adaptive)}
    return {**whose, "weights": who.nbytes, "I": inputs, "H": hidden, "L": layers, "batch": batch, "threads": threads}


def publish(
    options: argparse.Namespace,
    name: str,
    title: str,
    header: Sequence[str],
    found: Iterable[tuple[common.Record, Sequence[object]]],
) -> None:
    """Save the records of one case, and print them, or their rows as a table and the contenders that were left out."""
    records, rows = zip(*found, strict=True)
    common.save(options, name, records)
    if options.json:
        print("\n".join(map(json.dumps, records)), flush=True)
        return
    left_out = [f"unavailable: {one['name']} ({one['reason']})" for one in records[0]["unavailable"]]
    print("\n".join([common.table(title, header, rows), *left_out]), flush=True)
