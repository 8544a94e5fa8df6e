"""Is an exact LSTM ever slower than ``nn.LSTM``? Batches, lengths, sizes, dtypes, and weights computed for each call.

``python -m eval.never_slower``: random weights, nothing skipped or quantized. Two times of every cell, both against
``nn.LSTM`` on the same inputs, as adapted time over torch's:

first  the first FIRST calls of a batch size and length that no call had before, weights packed, one after the other,
       torch and adapted in turn; the race is in it
then   calls once that is settled, by the protocol of ``adaptive_lstm.bench``

Below 1 the adapted LSTM is faster; the bar is 1 / 0.97.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from adaptive_lstm import adapt
from adaptive_lstm.bench import ratio
from adaptive_lstm.execution.torch_choice import ROUNDS
from eval.shared import common

BAR = 1 / 0.97
FIRST = 20
SIZES = ((16, 16, 1), (40, 128, 3), (256, 256, 2), (512, 512, 2))
BATCHES, LENGTHS = (1, 2, 8, 32, 256), (1, 16, 64)
MACS = 4e9  # larger cells are left out
DTYPES = (torch.bfloat16, torch.float16, torch.float64)
OTHER_DTYPES = (((16, 16, 1), 1, 1), ((40, 128, 1), 1, 10), ((40, 256, 2), 1, 16), ((40, 256, 2), 8, 16))  # size, B, T


class _Dropped(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(w, 0.2)


def _each(lstm: nn.LSTM, change: Callable[[nn.LSTM, str], object]) -> None:
    for layer in range(lstm.num_layers):
        change(lstm, f"weight_hh_l{layer}")


COMPUTED: dict[str, Callable[[nn.LSTM, str], object]] = {
    "pruned": lambda lstm, name: prune.l1_unstructured(lstm, name, 0.5),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "dropped at every call": lambda lstm, name: parametrize.register_parametrization(lstm, name, _Dropped()),
}


def cells() -> Iterator[tuple[str, nn.LSTM, nn.LSTM, torch.Tensor]]:
    """Name, ``nn.LSTM``, the same adapted, and an input [T, B, I] of every cell."""
    for size in SIZES:
        for batch in BATCHES:
            for length in LENGTHS:
                lstm = nn.LSTM(*size).eval()
                if batch * length * sum(w.numel() for w in lstm.parameters()) <= MACS:
                    yield (
                        f"float32 {size}, B {batch}, T {length}",
                        lstm,
                        adapt(lstm),
                        torch.randn(length, batch, size[0]),
                    )
    for dtype in DTYPES:
        for size, batch, length in OTHER_DTYPES:
            lstm = nn.LSTM(*size).eval().to(dtype)
            x = torch.randn(length, batch, size[0]).to(dtype)
            yield f"{str(dtype).removeprefix('torch.')} {size}, B {batch}, T {length}", lstm, adapt(lstm), x
    size = (40, 256, 2)
    for name, change in COMPUTED.items():
        for batch, length in ((1, 1), (1, 64), (8, 64)):
            lstm = nn.LSTM(*size).eval()
            fast = adapt(lstm)
            _each(lstm, change)
            _each(fast, change)
            yield f"{name} {size}, B {batch}, T {length}", lstm.eval(), fast.eval(), torch.randn(length, batch, size[0])


def examine(name: str, lstm: nn.LSTM, fast: nn.LSTM, x: torch.Tensor, *, quick: bool) -> dict[str, Any]:
    """One record."""
    other = x.new_zeros(3 * len(x), 3 * x.shape[1], x.shape[2])[:2, :1]
    for module in (lstm, fast):
        module(other)  # packs, and warms torch up
    total = {"torch": 0.0, "adapted": 0.0}
    for _ in range(FIRST):
        for who, module in (("torch", lstm), ("adapted", fast)):
            start = time.perf_counter()
            module(x)
            total[who] += time.perf_counter() - start
    for _ in range(2 * ROUNDS):
        fast(x)
    timings = common.race({"adapted": lambda: fast(x), "torch": lambda: lstm(x)}, quick=quick, seconds=3)
    found = ratio(timings["adapted"], timings["torch"])
    stats: Any = getattr(fast, "last_run", None)
    return {
        "group": name.split()[0],
        "case": name,
        "first": total["adapted"] / total["torch"],
        "then": found.as_dict(),
        "route": "" if stats is None else str(stats.route),
        **{who: timing.as_dict() for who, timing in timings.items()},
    }


def main() -> None:
    options = common.parser(__doc__).parse_args()
    with common.inference(options.threads):
        common.headline(options)
        records = [examine(*cell, quick=options.quick) for cell in cells()]
    common.save(options, "never_slower", records)
    if options.json:
        print("\n".join(map(json.dumps, records)))
        return
    rows = [[r["case"], f"{r['first']:.2f}", f"{r['then']['median'] or float('nan'):.2f}", r["route"]] for r in records]
    print(common.table("Adapted time over torch's", ["cell", f"first {FIRST} calls", "then", "served by"], rows))
    told = [r for r in records if r["then"]["median"] is not None]
    worst = max(told, key=lambda r: r["then"]["median"], default=None)
    if worst is not None:
        slow = sum(r["then"]["median"] > BAR for r in told)
        print(f"\nworst: {worst['case']}, {worst['then']['median']:.2f}; above {BAR:.2f}: {slow} of {len(told)} cells")


if __name__ == "__main__":
    main()
