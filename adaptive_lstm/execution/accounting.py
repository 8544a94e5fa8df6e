"""From what a run counted to its statistics: multiply-accumulates of the matrices and of the policy's own checks."""

from __future__ import annotations

from ..policies import Parts, kind_of
from ..types import Counts, Route, RunStats, StackShape


def policy_macs(policy: Parts, shape: StackShape, counts: Counts) -> int:
    """Multiply-accumulates of the policy's own checks, and of the translations that rows exited with."""
    kinds = [(part, kind_of(part)) for part in policy.policies]
    return sum(kind.macs(part, shape, counts) for part, kind in kinds if kind.macs is not None)


def run_stats(
    policy: Parts, shape: StackShape, counts: Counts, timesteps: int, *, route: Route, threads: int
) -> RunStats:
    """Statistics of ``timesteps`` batch rows times timesteps, what the policy itself computed included."""
    macs = policy_macs(policy, shape, counts)
    return RunStats.of(shape, counts, timesteps, route=route, threads=threads, policy_macs=macs)
