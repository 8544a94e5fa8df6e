"""What a run gave, by name, and where two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from adaptive_lstm.types import ColumnCounts, ExitState, HoldState, RunStats, StreamState

# Of outputs and states, relative where a value exceeds 1. Two float32 executors of a short, well-conditioned run stay
# below it; what does not is not a fault yet, but has to be explained (``margins``).
CLOSE = 2e-5
LARGEST = 2.0**120  # sums of a hundred terms of this size overflow in one order and not in another
LARGEST_SUM = 2.0**123  # its terms, of either sign, are some times larger; partial sums of them may overflow


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    ``tensors``: outputs and states by name.
    ``counts``: everything that was counted, as ``counted`` gives it; compared exactly.
    ``in_order``: whether the batch rows of the states are those of the run, in order.
    ``largest_sum``: the largest pre-activation, if it was watched: infinity behind a sigmoid looks like any large one.
    """

    tensors: Mapping[str, torch.Tensor]
    counts: tuple[int, ...] = ()
    in_order: bool = True
    largest_sum: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether no float overflowed, or came near it; where one did, the order of a sum decides what comes of it."""
        floats = (t for name, t in self.tensors.items() if t.is_floating_point() and "past" not in name)
        return self.largest_sum < LARGEST_SUM and all(bool((t.abs() < LARGEST).all()) for t in floats)


PER_CELL = len(ColumnCounts._fields)
SENT = {"x": ColumnCounts._fields.index("x_sent"), "h": ColumnCounts._fields.index("h_sent")}
AT_THE_END = 5  # exits, exit checks, multiply-accumulates, those of the policy, timesteps
OF_SENT = 2  # those at the end that count columns again: multiply-accumulates


def counted(stats: RunStats, before: RunStats | None = None) -> tuple[int, ...]:
    """What a run counted, since ``before`` if that is given: PER_CELL numbers of each cell, then AT_THE_END."""
    numbers = [n for c in stats.columns for n in c]
    numbers += [stats.exits, stats.exit_checks, stats.macs, stats.policy_macs, stats.timesteps]
    if before is None:
        return tuple(numbers)
    return tuple(a - b for a, b in zip(numbers, counted(before), strict=True))


def leaves(state: StreamState | HoldState | ExitState) -> dict[str, torch.Tensor]:
    """Every tensor of a state by name; numbers as tensors, None left out."""
    out: dict[str, torch.Tensor] = {}
    for name, value in vars(state).items():
        for i, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, HoldState | ExitState):
                out |= {f"{name}[{i}].{inner}": v for inner, v in leaves(item).items()}
            elif item is not None:
                out[f"{name}[{i}]"] = torch.as_tensor(item)
    return out


def tolerance(want: torch.Tensor) -> torch.Tensor:
    """How far a float may be off before that must be explained."""
    return CLOSE * want.abs().clamp(min=1)


def differing(got: Outcome, want: Outcome, allowed: Mapping[str, torch.Tensor] | None = None) -> dict[str, int]:
    """How many elements of each tensor differ by more than allowed, and how many counts do; {} if none.

    Args:
        got, want: the two.
        allowed: by name, as ``tolerance`` gives it by default.
    """
    found: dict[str, int] = {}
    for name in got.tensors.keys() | want.tensors.keys():
        a, b = got.tensors.get(name), want.tensors.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            found[name] = 10**6  # never explained
            continue
        limit = None if allowed is None else allowed.get(name)
        n = _off(a, b, tolerance(b) if limit is None else limit) if a.is_floating_point() else int((a != b).sum())
        if n:
            found[name] = n
    counts = sum(a != b for a, b in zip(got.counts, want.counts, strict=True))
    return found | ({"counts": counts} if counts else {})


def distance(got: Outcome, want: Outcome, allowed: Mapping[str, torch.Tensor]) -> tuple[int, int]:
    """How far two runs are apart: elements that differ, then by how much counts do; (0, 0) where nothing differs."""
    found = differing(got, want, allowed)
    found.pop("counts", None)
    return sum(found.values()), sum(min(abs(a - b), 100) for a, b in zip(got.counts, want.counts, strict=True))


def differing_rows(got: Outcome, want: Outcome, allowed: Mapping[str, torch.Tensor]) -> set[int]:
    """Batch rows whose final states differ."""
    found: set[int] = set()
    for name in ("h", "c", "h[0]", "c[0]"):
        if name in want.tensors and want.tensors[name].dim() == 3:
            a, b = got.tensors[name], want.tensors[name]
            off = ~((a - b).abs() <= allowed[name])
            found |= set(off.any(2).any(0).nonzero()[:, 0].tolist())
    return found


def _off(a: torch.Tensor, b: torch.Tensor, limit: torch.Tensor) -> int:
    wrong = ~((a - b).abs() <= limit)  # NaN is wrong too, unless it is in both
    return int((wrong & ~(a.isnan() & b.isnan()) & (a != b)).sum())


def told(got: Outcome, want: Outcome) -> str:
    """The differences for people."""
    lines = []
    for name, n in differing(got, want).items():
        if name == "counts":
            lines.append(f"  counts: got {got.counts}, expected {want.counts}")
            continue
        a, b = got.tensors.get(name), want.tensors.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"  {name}: got {_form(a)}, expected {_form(b)}")
            continue
        off = (a.double() - b.double()).abs().nan_to_num(float("inf")).flatten()
        at = int(off.argmax())
        values = f"{a.flatten()[at].item():.8g}, expected {b.flatten()[at].item():.8g}"
        lines.append(f"  {name}: {n} of {a.numel()} differ; at most {off[at].item():.3g} (got {values})")
    return "\n".join(lines)


def _form(t: torch.Tensor | None) -> str:
    return "nothing" if t is None else f"{t.dtype} {tuple(t.shape)}"
