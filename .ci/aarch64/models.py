"""``python .ci/aarch64/models.py FOLDER``: saves LSTMs of many sizes, precisions, zeros and policies, one file each.

Needs torch. ``outputs.py`` runs them, with torch or without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

import adaptive_lstm as al
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.fingerprint import weights_digest
from adaptive_lstm.weights.layout import tensors_of
from adaptive_lstm.weights.replaced import ReplacedWeights
from tests.deploy.test_equals_torch_side import PRECISIONS
from tests.support.artifact_cases import lstm_of, prune
from tests.support.policy_cases import FAMILIES, SHAPES

# I, H and L: around the width of registers and of row blocks; the last ones beyond what is packed as one tile.
SIZES = (1, 1, 1), (3, 7, 2), (40, 33, 1), (33, 64, 2), (5, 130, 1), (130, 300, 1), (64, 450, 1)
WIDE = {
    "fp32": al.Quantize(),
    "bf16": al.Quantize("bf16", raw="bf16"),
    "int8": al.Quantize("int8"),
    "bytes": al.Quantize("int8", levels=127, input_levels=127, raw="int8", raw_range="dynamic"),
    "words": al.Quantize("int8", levels=8191, input_levels=8191),
}
Case = tuple[str, al.AdaptiveLSTM]


def small() -> Iterator[Case]:
    """Every precision and every policy on small stacks."""
    for way, shape in SHAPES.items():
        for precision, quantize in PRECISIONS.items():
            for zeros in (False, True):
                for name, policy in (("dense", al.Dense()), ("delta", al.Delta.uniform(0.03))):
                    fast = al.AdaptiveLSTM.from_lstm(lstm_of(shape))
                    fast.quantize, fast.policy = quantize, policy
                    if zeros:
                        prune(fast)
                    yield f"small {way} {precision} {'pruned ' if zeros else ''}{name}", fast
    for i, family in enumerate(FAMILIES):
        shape, policy, _ = family.values
        fast = al.AdaptiveLSTM.from_lstm(lstm_of(shape))
        fast.quantize, fast.policy = al.Quantize("int8" if i % 4 else "fp32"), policy
        yield f"policy {family.id}", fast


def prune_blocks(lstm: al.AdaptiveLSTM) -> None:
    """Zeros in whole blocks of the kernels: a column of all gates of 16 units."""

    def without(w: torch.Tensor) -> torch.Tensor:
        units = lstm.hidden_size
        kept = torch.rand(units // 16 + 1, w.shape[1]).repeat_interleave(16, 0)[:units] > 0.6
        return w.detach() * kept.repeat(4, 1)

    cells = tuple(replace(t, w_ih=without(t.w_ih), w_hh=without(t.w_hh)) for t in tensors_of(lstm))
    lstm.replaced = ReplacedWeights(cells, weights_digest(lstm))


def wide() -> Iterator[Case]:
    """Every precision in sizes that meet all the ways through a kernel, whole and with zeros in blocks."""
    for size in SIZES:
        for precision, quantize in WIDE.items():
            for zeros in ("whole", "blocks"):
                fast = al.AdaptiveLSTM.from_lstm(lstm_of(StackShape(*size)))
                if zeros == "blocks":
                    if size[1] < 33:
                        continue
                    prune_blocks(fast)
                fast.quantize = quantize
                for name, policy in (("dense", al.Dense()), ("delta", al.Delta(h=0.02, x=None))):
                    fast.policy = policy
                    yield f"wide {'x'.join(map(str, size))} {precision} {zeros} {name}", fast


def main(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in (small, wide):
        torch.manual_seed(0)
        for name, fast in source():
            al.save(fast.eval(), folder / f"{name}.alstm", weights=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
