"""What does Ray cost? A job of ``adaptive_lstm.ray.Scorer`` beside ``al.map_sequences`` in one process per core.

``python -m eval.bulk_ray --cores 2``: random weights, sequences of the lengths of ``eval.throughput``, one thread per
process, all outputs kept. Rates are timesteps per second on all cores together:

mapped     ``al.map_sequences`` on an equal share of the sequences in each process; rates are added
scorer     the same processes, a ``Scorer`` called directly: what this package adds
ray        a job of Ray Data with as many actors, from the first outputs to the last: without starting the actors

First, the outputs of the ``Scorer`` are compared with those of ``al.map_sequences``. The goal: Ray's rate is at least
0.9 of "mapped", the median of rounds in which both run in turn.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

import adaptive_lstm as al
from adaptive_lstm.ray import Scorer
from eval.shared import common
from eval.shared.contenders import Shape, publish, shape, stack
from eval.throughput import lengths

Rate = Callable[[Shape, Any, Path, int], float]

SHAPES: tuple[Shape, ...] = ((40, 256, 3), (128, 128, 2))
PRECISIONS: tuple[Any, ...] = ("fp32", "int8")
SEQUENCES = 256  # of a batch, each of its lengths once
TOKENS = 8192
GOAL = 0.9
STORE = 600_000_000  # bytes for what waits between Ray's processes


def sequences(of: Shape) -> list[torch.Tensor]:
    """Those of a batch."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, of[0], generator=generator) for n in lengths(SEQUENCES)]


def as_batch(of: Shape) -> dict[str, Any]:
    """The same as Ray's workers get them."""
    column = np.empty(SEQUENCES, object)
    column[:] = [x.numpy() for x in sequences(of)]
    return {"x": column}


def save(of: Shape, precision: Any, path: Path) -> al.AdaptiveLSTM:
    """An LSTM with its file, the same in every process."""
    torch.manual_seed(0)
    lstm = al.AdaptiveLSTM.from_lstm(stack(of))
    lstm.quantize = al.Quantize(precision)
    al.save(lstm, path, weights=True)
    return lstm


def check(of: Shape, precision: Any, path: Path) -> None:
    """Raise ``RuntimeError`` if the two differ: a bug, so nothing is measured."""
    mapped = al.map_sequences(save(of, precision, path), sequences(of), batch_tokens=TOKENS, threads=1)
    scored = Scorer(path, batch_tokens=TOKENS)(as_batch(of))["y"]
    error = max(float(np.abs(y - want.numpy()).max()) for y, (want, _) in zip(scored, mapped, strict=True))
    if not error <= common.TOLERANCE["fp32"]:
        raise RuntimeError(f"{of}, {precision}: the Scorer differs from map_sequences by {error:.2g}, nothing is timed")


# -------------------------------------------------------------------------------------------------- in each process


def mapped_rate(of: Shape, precision: Any, path: Path, batches: int) -> float:
    """Timesteps per second of ``map_sequences`` on so many batches."""
    torch.set_num_threads(1)
    lstm, given = save(of, precision, path.with_name(f"{os.getpid()}.alstm")), sequences(of)
    with torch.no_grad():
        list(al.map_sequences(lstm, given, batch_tokens=TOKENS, threads=1))
        begin = time.perf_counter()
        for _ in range(batches):
            list(al.map_sequences(lstm, given, batch_tokens=TOKENS, threads=1))
    return batches * sum(map(len, given)) / (time.perf_counter() - begin)


def scorer_rate(of: Shape, _: Any, path: Path, batches: int) -> float:
    """The same of a ``Scorer``."""
    score, given = Scorer(path, batch_tokens=TOKENS), as_batch(of)
    score(given)
    begin = time.perf_counter()
    for _ in range(batches):
        score(given)
    return batches * sum(map(len, given["x"])) / (time.perf_counter() - begin)


# -------------------------------------------------------------------------------------------------------------- Ray


def ray_rate(ray: Any, dataset: Any, path: Path, cores: int) -> tuple[float, float]:
    """Timesteps per second of a job, from its first outputs to its last, and with its start."""
    given = {"path": path, "batch_tokens": TOKENS, "activity": None, "certificate": None}
    begin = time.perf_counter()
    job = dataset.map_batches(Scorer, fn_constructor_kwargs=given, concurrency=cores, num_cpus=1, batch_size=SEQUENCES)
    seen = [(time.perf_counter(), bundle.num_rows()) for bundle in job.iter_internal_ref_bundles()]
    first, last, per_row = seen[cores - 1][0], seen[-1][0], statistics.fmean(lengths(SEQUENCES))
    steady = sum(rows for _, rows in seen[cores:]) * per_row / (last - first)  # every actor has given its first by then
    return steady, sum(rows for _, rows in seen) * per_row / (last - begin)


def rounds(of: Shape, precision: Any, options: argparse.Namespace, folder: Path) -> Iterator[dict[str, float]]:
    """The rates of all ways, once per round."""
    ray, path = import_module("ray"), folder / "model.alstm"
    check(of, precision, path)
    rows = [{"x": x.numpy()} for x in sequences(of)] * options.together
    (block,) = ray.data.from_items(rows, override_num_blocks=1).to_arrow_refs()
    dataset = ray.data.from_arrow_refs([block] * (options.blocks * options.cores))
    with ProcessPoolExecutor(options.cores, mp_context=get_context("spawn")) as pool:

        def together(rate: Rate) -> float:
            """Of all processes."""
            waiting = [
                pool.submit(rate, of, precision, path, options.blocks * options.together) for _ in range(options.cores)
            ]
            return sum(one.result() for one in waiting)

        for _ in range(options.rounds):
            mapped, scorer = together(mapped_rate), together(scorer_rate)
            steady, whole = ray_rate(ray, dataset, path, options.cores)
            yield {"mapped": mapped, "scorer": scorer, "ray": steady, "ray with start": whole}


def measured(of: Shape, options: argparse.Namespace) -> Iterator[tuple[common.Record, list[str]]]:
    """A record and a row of the table for every precision."""
    for precision in options.precisions:
        with tempfile.TemporaryDirectory() as folder:
            found = list(rounds(of, precision, options, Path(folder)))
        shares = {way: [one[way] / one["mapped"] for one in found] for way in found[0]}
        share = statistics.median(shares["ray"])
        record = {
            "group": "bulk_ray",
            "case": f"{of}, {precision}, {options.cores} core(s)",
            "precision": precision,
            "I": of[0],
            "H": of[1],
            "L": of[2],
            "cores": options.cores,
            "blocks": options.blocks,
            "block": options.together * SEQUENCES,
            "timesteps": options.cores * options.blocks * options.together * sum(lengths(SEQUENCES)),
            "rates": {way: statistics.median(one[way] for one in found) for way in found[0]},
            "shares": shares,
            "share": share,
            "goal": GOAL,
            "verdict": "PASS" if share >= GOAL else "MISS",
            "unavailable": [],
        }
        rates = [f"{rate:.4g}" for rate in record["rates"].values()]
        yield record, [precision, *rates, *(f"{statistics.median(shares[way]):.2f}" for way in ("scorer", "ray"))]


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="I,H,L", help="stacks")
    parser.add_argument("--precisions", type=common.one_of(*PRECISIONS), default=PRECISIONS, help="of the weights")
    parser.add_argument("--cores", type=common.positive, default=2, help="processes of each way (default 2)")
    parser.add_argument("--blocks", type=common.positive, default=4, help="of the data, per core (default 4)")
    parser.add_argument("--together", type=common.positive, default=4, help="batches of 256 in a block (default 4)")
    parser.add_argument("--rounds", type=common.positive, default=3, help="in which all ways run in turn (default 3)")
    options = parser.parse_args(argv)
    try:
        ray = import_module("ray")
    except ModuleNotFoundError:
        parser.error("Ray is not installed: pip install 'adaptive-lstm[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    if options.blocks < 2:
        parser.error("--blocks: got 1, expected 2 at least: the first of each actor is not counted")
    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=options.cores, include_dashboard=False, object_store_memory=STORE, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        with common.inference(1):
            common.headline(options)
            for of in options.shapes:
                title = f"{of}: timesteps per second on {options.cores} core(s)"
                header = ["weights", "mapped", "scorer", "ray", "ray with start", "scorer/mapped", "ray/mapped"]
                publish(options, "bulk_ray", title, header, measured(of, options))
    finally:
        if ours:
            ray.shutdown()


if __name__ == "__main__":
    main()
