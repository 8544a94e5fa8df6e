"""From what a run counted to its statistics: multiply-accumulates of the matrices and of the policy's own checks."""

from __future__ import annotations

from ..policies import Dense, ExitInDepth, ExitInTime, LinearHead, Parts
from ..types import Counts, RunStats, StackShape


def policy_macs(policy: Parts, shape: StackShape, counts: Counts) -> int:
    """Multiply-accumulates of the questions that were asked and of the translations that rows left with.

    With a linear head a question is one map to logits, the translator folded in; without, it is the translation. Of
    other heads and of policies written in Python only the translations are known.
    """
    layers, width = shape.num_layers, shape.directions * shape.output_size
    macs = 0
    if isinstance(policy.time_exit, ExitInTime):
        translated = policy.time_exit.translators is not None
        known = layers * width if translated else width
        translation = width * known if translated else 0
        head = policy.time_exit.head
        if isinstance(head, LinearHead):
            macs += counts.exit_checks * len(head.weight) * known + counts.exits * translation
        else:
            macs += counts.exit_checks * translation
    if isinstance(policy.depth_exit, ExitInDepth):
        head = policy.depth_exit.head
        for layer, (asked, left) in enumerate(zip(counts.depth_checks, counts.depth_exits, strict=True)):
            known = (layer + 1) * width
            if isinstance(head, LinearHead):
                macs += asked * len(head.weight) * known
            else:
                macs += asked * width * (known if head is not None else known + layer * width)
            # A timestep leaves with the translation that was asked about; a sequence's outputs have maps of their own.
            if isinstance(head, LinearHead) or policy.depth_exit.level == "sequence":
                macs += left * width * known
    return macs


def run_stats(policy: Parts, shape: StackShape, counts: Counts, timesteps: int, fallback: str | None) -> RunStats:
    """Statistics of ``timesteps`` batch rows times timesteps, what the policy itself computed included."""
    return RunStats.of(shape, counts, timesteps, fallback, policy_macs(policy, shape, counts))


def skips(policy: Parts) -> bool:
    """Whether a policy can leave anything out."""
    return not (
        isinstance(policy.columns, Dense) and not policy.hold and not policy.time_exit and not policy.depth_exit
    )
