"""Does the time of every policy fall in line with its work? int8, one sequence, whole sequences.

``python -m eval.linearity``: random weights, inputs that drift, and for every mechanism settings at which it leaves
the shares SHARES of the multiply-accumulates to do (what the LSTM itself counted is the share that is judged). With
``call`` the time of a call of one timestep and ``rest`` what the sequence takes beyond it with nothing skipped,

    time(policy at share s) <= call + (s + MARGIN) x rest

A policy that never acts, because its thresholds never fire, may take INERT times as long as nothing skipped.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import adaptive_lstm as al
from adaptive_lstm.bench import Timing, format_seconds, ratio
from adaptive_lstm.peers import Adaptive, build_adaptive
from adaptive_lstm.policies import DepthTranslators, Map, Policy, TimeTranslators
from eval.shared import common
from eval.shared.contenders import Shape, shape, stack

SHAPES: tuple[Shape, ...] = ((40, 128, 3), (40, 256, 2))
LENGTHS = (50, 160, 500)
SHARES = (0.1, 0.25, 0.5, 0.75)
MARGIN, INERT = 0.10, 1.02
CLASSES = 10
DRIFT = 0.9  # of x_t that stays in x_t+1
SEARCH = 30  # halvings
NEVER, ALWAYS = 1.0, 0.0  # thresholds of a confidence
SECONDS = 1.5  # of timing per mechanism


@dataclass(frozen=True)
class Case:
    """A stack in int8, one input [1, T, I], and a maker of random maps."""

    dense: Adaptive
    x: Tensor

    @property
    def layers(self) -> int:
        return self.dense.lstm.num_layers

    @property
    def hidden(self) -> int:
        return self.dense.lstm.hidden_size

    def with_policy(self, policy: Policy) -> Adaptive:
        """The same weights under a policy."""
        fast = al.AdaptiveLSTM.from_lstm(self.dense.lstm).eval()
        fast.policy = policy
        return Adaptive("int8", "int8", fast)

    def share(self, who: Adaptive) -> float:
        """Of the multiply-accumulates that are left to do, those of the policy itself included."""
        who.whole(self.x)()
        stats = who.last_run()
        return stats.macs / stats.macs_possible

    def map(self, layers: int, rows: int | None = None) -> Map:
        """A random map of the states of so many layers."""
        inputs = layers * self.hidden
        weight = np.random.default_rng(0).standard_normal((rows or self.hidden, inputs)) / inputs**0.5
        return Map(weight.astype(np.float32), np.zeros(len(weight), np.float32))

    def head(self) -> al.LinearHead:
        made = self.map(1, CLASSES)
        return al.LinearHead(8 * made.weight, made.bias)


Found = Iterator[tuple[str, Adaptive]]  # names "inert" and "s=0.5", and who works at that share


def searched(case: Case, make: Callable[[float], Policy], least: float, most: float) -> Found:
    """Settings between ``least`` (never acts) and ``most`` at which about the wanted shares are left to do."""
    yield "inert", case.with_policy(make(least))
    for wanted in SHARES:
        low, high = least or most * 1e-9, most
        for _ in range(SEARCH):
            middle = (low * high) ** 0.5
            if case.share(case.with_policy(make(middle))) > wanted:
                low = middle
            else:
                high = middle
        yield f"s={wanted:g}", case.with_policy(make(high))


def delta_h(case: Case) -> Found:
    yield from searched(case, lambda tau: al.Delta(h=tau, x=(0.0,) * case.layers), 1e-9, 2.0)


def delta_xh(case: Case) -> Found:
    yield from searched(case, lambda tau: al.Delta(h=tau, x=(None, *(tau,) * (case.layers - 1))), 1e-9, 2.0)


def skip(case: Case) -> Found:
    yield from searched(case, lambda share: al.SkipTimesteps(x_share=share, cap=1000), 1e-9, 10.0)


def skip_state(case: Case) -> Found:
    yield from searched(case, lambda share: al.SkipTimesteps(x_share=share, cap=1000, mode="hold_state"), 1e-9, 10.0)


def skip_by_h(case: Case) -> Found:
    yield from searched(case, lambda h: al.SkipTimesteps(x_share=None, h=h, cap=1000), 1e-9, 10.0)


def hold(case: Case) -> Found:
    yield from searched(case, lambda share: al.HoldLayers(x_share=share, cap=1000), 1e-9, 10.0)


def _stops(case: Case, make: Callable[[tuple[int, ...], tuple[float, ...]], Policy]) -> Found:
    """Exits at a share of the timesteps: the first check there passes, those before do not."""
    yield "inert", case.with_policy(make((0,), (NEVER - 1e-6,)))
    for wanted in SHARES:
        at = max(1, round(wanted * case.x.shape[1]) - 4)
        yield f"s={wanted:g}", case.with_policy(make((0, at), (NEVER - 1e-6, ALWAYS)))


def _translators(case: Case, starts: tuple[int, ...]) -> TimeTranslators:
    return TimeTranslators(starts, (case.map(case.layers),) * len(starts))


def exit_head(case: Case) -> Found:
    def make(starts: tuple[int, ...], thresholds: tuple[float, ...]) -> Policy:
        return al.ExitInTime(
            head=case.head(), threshold=thresholds, starts=starts, translators=_translators(case, starts)
        )

    yield from _stops(case, make)


def exit_settled(case: Case) -> Found:
    def make(starts: tuple[int, ...], thresholds: tuple[float, ...]) -> Policy:
        limits = tuple(1e6 if t == ALWAYS else 1e-9 for t in thresholds)
        return al.ExitInTime(threshold=limits, starts=starts, translators=_translators(case, starts))

    yield from _stops(case, make)


def _depth_translators(case: Case) -> DepthTranslators:
    maps = tuple(case.map(k + 1) for k in range(case.layers - 1))
    return DepthTranslators(maps, maps)


def depth_sequence(case: Case) -> Found:
    settings: dict[str, Any] = {"head": case.head(), "translators": _depth_translators(case), "level": "sequence"}
    below = case.layers - 1
    yield "inert", case.with_policy(al.ExitInDepth(threshold=(NEVER - 1e-6,) * below, **settings))
    for layer in range(below):
        thresholds = tuple(ALWAYS if k == layer else NEVER for k in range(below))
        yield f"after layer {layer}", case.with_policy(al.ExitInDepth(threshold=thresholds, **settings))


def depth_step(case: Case) -> Found:
    settings: dict[str, Any] = {"head": case.head(), "translators": _depth_translators(case), "level": "step"}
    rest = (NEVER,) * (case.layers - 2)

    def make(strength: float) -> Policy:
        return al.ExitInDepth(threshold=(max(0.0, NEVER - 1e-6 - strength), *rest), **settings)

    yield from searched(case, make, 0.0, 1.0)


def delta_and_exit(case: Case) -> Found:
    for (name, delta), (_, ends) in zip(delta_xh(case), exit_head(case), strict=True):
        yield name, case.with_policy(al.Combined(delta.lstm.policy, ends.lstm.policy))


def skip_and_exit(case: Case) -> Found:
    for (name, held), (_, ends) in zip(skip(case), exit_head(case), strict=True):
        yield name, case.with_policy(al.Combined(held.lstm.policy, ends.lstm.policy))


MECHANISMS: Mapping[str, tuple[str, Callable[[Case], Found]]] = {
    "delta_h": ("Delta on h", delta_h),
    "delta_xh": ("Delta on x and h", delta_xh),
    "skip": ("SkipTimesteps, gates held", skip),
    "skip_state": ("SkipTimesteps, states held", skip_state),
    "skip_by_h": ("SkipTimesteps by h", skip_by_h),
    "hold": ("HoldLayers", hold),
    "exit_head": ("ExitInTime with a head", exit_head),
    "exit_settled": ("ExitInTime without a head", exit_settled),
    "depth_sequence": ("ExitInDepth of sequences", depth_sequence),
    "depth_step": ("ExitInDepth of steps", depth_step),
    "delta_and_exit": ("Delta and ExitInTime", delta_and_exit),
    "skip_and_exit": ("SkipTimesteps and ExitInTime", skip_and_exit),
}


def case_of(of: Shape, length: int) -> Case:
    """A random stack and inputs that drift, of mean square 1."""
    x = torch.randn(1, length, of[0])
    for t in range(1, length):
        x[:, t] = DRIFT * x[:, t - 1] + (1 - DRIFT**2) ** 0.5 * x[:, t]
    return Case(build_adaptive(stack(of), "int8"), x)


def examine(case: Case, mechanism: str, *, quick: bool) -> tuple[dict[str, Any], str]:
    """The record of one mechanism on one case, and its table."""
    title, find = MECHANISMS[mechanism]
    lineup = dict(find(case))
    shares = {name: case.share(who) for name, who in lineup.items()}
    calls = {"dense": case.dense.whole(case.x), "call": case.dense.whole(case.x[:, :1])}
    calls |= {name: who.whole(case.x) for name, who in lineup.items()}
    timings = common.race(calls, quick=quick, prime=1, seconds=SECONDS)  # each with its own weights in the cache
    call = ratio(timings["call"], timings["dense"]).median
    judged = [_judged(name, share, call, timings) for name, share in shares.items()]
    lstm, length = case.dense.lstm, case.x.shape[1]
    named = f"({lstm.input_size}, {lstm.hidden_size}, {lstm.num_layers}), T {length}"
    record = {
        "group": mechanism, "case": named, "title": title, "call": call, "judged": judged,
        "dense": timings["dense"].as_dict(),
    }  # fmt: skip
    rows = [
        [
            j["who"],
            f"{j['share']:.3f}",
            f"{j['took']['median'] or float('nan'):.3f}",
            f"{j['allowed']:.3f}",
            j["verdict"],
        ]
        for j in judged
    ]
    dense = format_seconds(timings["dense"].median)
    head = [title, "share of the work", "of the time", "allowed", ""]
    return record, common.table(f"{title}, {named}: {dense} with nothing skipped, a call {call:.3f} of it", head, rows)


def _judged(name: str, share: float, call: float, timings: Mapping[str, Timing]) -> dict[str, Any]:
    took = ratio(timings[name], timings["dense"])
    allowed = INERT if name == "inert" else call + (share + MARGIN) * (1 - call)
    verdict = "n/a" if not took.meaningful else "PASS" if took.median <= allowed else "MISS"
    return {"who": name, "share": share, "took": took.as_dict(), "allowed": allowed, "verdict": verdict}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--only", type=common.one_of(*MECHANISMS), default=tuple(MECHANISMS), help="mechanisms")
    parser.add_argument("--shapes", type=shape, nargs="+", default=SHAPES, metavar="I,H,L", help="stacks to measure")
    parser.add_argument("--lengths", type=common.positive, nargs="+", default=LENGTHS, metavar="T", help="timesteps")
    options = parser.parse_args()
    with common.inference(options.threads):
        common.headline(options)
        for of, length in ((of, length) for of in options.shapes for length in options.lengths):
            case = case_of(of, length)
            records = list(_examined(case, options.only, options))
            common.save(options, "linearity", records)


def _examined(case: Case, only: Sequence[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for mechanism in only:
        record, text = examine(case, mechanism, quick=options.quick)
        print(json.dumps(record) if options.json else text, flush=True)
        yield record


if __name__ == "__main__":
    main()
