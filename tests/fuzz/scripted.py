"""Policies whose decisions go through a script (``margins``); the reference runs them in place of the real ones."""

from __future__ import annotations

from typing import Any

import torch

from adaptive_lstm.policies import Delta, ExitInDepth, ExitInTime, HoldLayers, Parts, SkipTimesteps
from adaptive_lstm.policies.change import Change, rms_change
from adaptive_lstm.policies.dense import Dense
from adaptive_lstm.policies.exits import Exit
from adaptive_lstm.policies.translators import bucket
from adaptive_lstm.types import Site, StackShape

from .outcome import Outcome
from .script import ULP, Script, no_threshold, read_sent, sends

# Confidences are float32 in both executors: exponentials, a division and, for the entropy, logarithms of the logits,
# whose own rounding grows with their size.
OF_CONFIDENCE = 32 * ULP


def scripted(policy: Parts, script: Script) -> Parts:
    """The same policy with every decision made by the script."""
    columns = policy.columns
    return Parts(
        columns if isinstance(columns, Dense) else _Columns(columns, script),
        tuple(_Hold(p, script) for p in policy.hold),  # forwards what it lacks
        None if policy.time_exit is None else _TimeExit(policy.time_exit, script),
        None if policy.depth_exit is None else _DepthExit(policy.depth_exit, script),
    )


class _Scripted:
    """Another policy but for its decision."""

    def __init__(self, policy: Any, script: Script):
        self.policy, self.script = policy, script

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)


class _Columns(_Scripted):
    policy: Delta

    def check(self, shape: StackShape) -> None:
        self.policy.check(shape)

    def thresholded(self, site: Site) -> bool:
        return self.policy.thresholded(site)

    def send(self, site: Site, value: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
        threshold = torch.as_tensor(self.policy.threshold(site), dtype=value.dtype)
        compared = torch.maximum(value.abs(), sent.abs()) + threshold
        fresh = self.script.fresh
        idle = (
            no_threshold(self.policy, site, value) if fresh is None else fresh | no_threshold(self.policy, site, value)
        )
        margin = ((value - sent).abs() - threshold).masked_fill(idle, float("inf"))
        natural, evidence = self.policy.send(site, value, sent), read_sent(site, self.script.rows, sent)
        return self.script.decide(sends(site), natural, margin, 4 * ULP * compared, evidence)


class _Hold(_Scripted):
    policy: SkipTimesteps | HoldLayers

    def should_hold(self, shape: StackShape, cell: int, change: Change) -> torch.Tensor:
        x_limit, h_limit = self._limits(cell // shape.directions)
        margins, sizes = [], []
        if x_limit is not None:
            size = x_limit * rms_change(change.x_used, torch.zeros_like(change.x_used))
            changed = rms_change(change.x, change.x_used)
            margins, sizes = [size - changed], [size + changed]
        if h_limit is not None:
            changed = rms_change(change.h, change.h_used)
            margins, sizes = [*margins, h_limit - changed], [*sizes, h_limit + changed]
        margin, floor = torch.stack(margins).amin(0), 4 * ULP * torch.stack(sizes).amax(0)

        def evidence(got: Outcome) -> torch.Tensor | None:
            run = got.tensors.get(f"hold[{cell}].run[0]")
            return None if run is None else run[: len(change.x)] > 0

        return self.script.decide("hold", self.policy.should_hold(shape, cell, change), margin, floor, evidence)

    def _limits(self, layer: int) -> tuple[float | None, float | None]:
        policy = self.policy
        return policy.limits(layer) if isinstance(policy, HoldLayers) else (policy.x_share, policy.h)


class _Exit(_Scripted):
    policy: Exit

    def _decide(
        self, kind: str, place: int, natural: torch.Tensor, translation: torch.Tensor, earlier: torch.Tensor | None
    ) -> torch.Tensor:
        policy, threshold = self.policy, self.policy.thresholds[place]
        if policy.head is not None:
            from adaptive_lstm.policies.head import confidence

            margin = confidence(policy.head, translation, policy.measure) - threshold
            with torch.no_grad():
                floor = OF_CONFIDENCE * (1 + policy.head(translation).abs().amax(1))
        else:
            assert earlier is not None
            changed = (translation - earlier).pow(2).mean(1).sqrt()
            margin, floor = threshold - changed, OF_CONFIDENCE * (threshold + changed + translation.abs().amax(1))
        self.script.at(kind, place)
        return self.script.decide(kind, natural, margin, floor)


class _TimeExit(_Exit):
    policy: ExitInTime

    def should_exit(self, time: int, translation: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        assert self.policy.starts is not None
        natural = self.policy.should_exit(time, translation, past)
        place = bucket(self.policy.starts, time)
        earlier = None if self.policy.head is not None else past[:, 0]
        return self._decide("exit in time", place, natural, translation, earlier)


class _DepthExit(_Exit):
    policy: ExitInDepth

    def should_exit(self, layer: int, translation: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
        natural = self.policy.should_exit(layer, translation, below)
        return self._decide("exit in depth", layer, natural, translation, below)
