"""Policies that hold or exit, recomputed by plain loops over one sequence: an oracle that shares no code with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Rule:
    """A layer is held while its input has changed by less than ``x`` of its size and its h by less than ``h``.

    ``action``: "hold_gates" (gates reused, c and h advance) or "hold_state" (c and h kept).
    """

    x: float | None
    h: float | None
    action: str
    cap: int = 8

    def should_hold(self, x: torch.Tensor, h: torch.Tensor, x_used: torch.Tensor, h_used: torch.Tensor) -> bool:
        if self.x is not None and rms(x - x_used) >= self.x * rms(x_used):
            return False
        return self.h is None or rms(h - h_used) < self.h


@dataclass(frozen=True)
class Trace:
    """h [T, L * D, P] and c [T, L * D, H] after every timestep.

    ``did[cell][t]``: "run", "hold_gates", "hold_state" or "exited" (in depth). ``sent``: columns computed, x and h of
    every cell.
    """

    h: torch.Tensor
    c: torch.Tensor
    did: list[list[str]]
    sent: list[tuple[int, int]]
    directions: int

    @property
    def y(self) -> torch.Tensor:
        """Output [T, D * P]."""
        return self.h[:, -self.directions :].flatten(1)

    @property
    def end(self) -> tuple[torch.Tensor, torch.Tensor]:
        """h_n [L * D, P] and c_n [L * D, H]: forward directions end at the last timestep, backward at the first."""
        last = [0 if self.directions == 2 and cell % 2 else -1 for cell in range(len(self.did))]
        return (
            torch.stack([self.h[t, cell] for cell, t in enumerate(last)]),
            torch.stack([self.c[t, cell] for cell, t in enumerate(last)]),
        )


Translate = Callable[[int, torch.Tensor], torch.Tensor | None]
"""Layer, and the outputs of it and all below at a timestep [layer + 1, D * P] -> the output to exit with, or None."""


def rms(v: torch.Tensor) -> float:
    return math.sqrt(float((v * v).sum()) / len(v))


@torch.no_grad()
def run(
    lstm: nn.LSTM,
    x: torch.Tensor,
    rules: Mapping[int, Rule] | None = None,
    *,
    delta: float | None = None,
    translate: Translate | None = None,
    hx: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> Trace:
    """One sequence x [T, I], layer by layer.

    ``rules``: of the layers that decide; the others follow the layer below. ``delta``: the threshold of all
    columns but raw features. ``translate``: called after every layer but the top, where all its directions ran. ``hx``:
    h_0 [L * D, P] and c_0 [L * D, H].
    """
    T, L, D = len(x), lstm.num_layers, 2 if lstm.bidirectional else 1
    P, H = lstm.proj_size or lstm.hidden_size, lstm.hidden_size
    all_h, all_c = x.new_zeros(T, L * D, P), x.new_zeros(T, L * D, H)
    did = [["run"] * T for _ in range(L * D)]
    sent = [(0, 0)] * (L * D)
    below, inputs, translations = [["run"] * T for _ in range(D)], x, dict[int, torch.Tensor]()
    for cell in range(L * D):
        layer, d = divmod(cell, D)
        rule = (rules or {}).get(layer)
        w_ih, w_hh, *rest = lstm.all_weights[cell]
        bias = rest[0] + rest[1] if lstm.bias else torch.zeros_like(w_ih[:, 0])
        h, c = (x.new_zeros(P), x.new_zeros(H)) if hx is None else (hx[0][cell], hx[1][cell])
        used: tuple[torch.Tensor, torch.Tensor] | None = None
        x_hat, h_hat, gates = torch.zeros_like(inputs[0]), torch.zeros_like(h), bias
        held = 0
        for t in range(T) if d == 0 else reversed(range(T)):
            x_t, do = inputs[t], below[d][t]
            if rule and do == "run" and used and held < rule.cap and rule.should_hold(x_t, h, *used):
                do = rule.action
            if do == "hold_gates" and not used:
                do = "hold_state"
            did[cell][t] = do
            held = 0 if do == "run" else held + 1
            if do == "run":
                moved = [
                    (value != old) if t == (T - 1 if d else 0) else (value - old).abs() > theta
                    for value, old, theta in ((x_t, x_hat, delta if layer else None), (h, h_hat, delta))
                    if theta is not None
                ]
                h_moves = moved[-1] if moved else torch.ones_like(h, dtype=torch.bool)
                x_moves = moved[0] if len(moved) == 2 else torch.ones_like(x_t, dtype=torch.bool)
                sent[cell] = sent[cell][0] + int(x_moves.sum()), sent[cell][1] + int(h_moves.sum())
                x_hat, h_hat = torch.where(x_moves, x_t, x_hat), torch.where(h_moves, h, h_hat)
                gates, used = w_ih @ x_hat + w_hh @ h_hat + bias, (x_t, h)
            if do in ("run", "hold_gates"):
                i, f, g, o = gates.view(4, H)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                if lstm.proj_size:
                    h = rest[-1] @ h
            elif do == "exited" and layer == L - 1:
                h = translations[t][d * P : (d + 1) * P]
            all_h[t, cell], all_c[t, cell] = h, c
        if d < D - 1:
            continue
        inputs = all_h[:, layer * D : cell + 1].flatten(1)
        below = [list(actions) for actions in did[layer * D : cell + 1]]
        for t in range(T) if translate and layer < L - 1 else ():
            if translate and all(actions[t] == "run" for actions in below):
                translation = translate(layer, all_h[t, : cell + 1].reshape(layer + 1, D * P))
                if translation is not None:
                    translations[t] = translation
                    for actions in below:
                        actions[t] = "exited"
    return Trace(all_h, all_c, did, sent, D)


def confidence(p: torch.Tensor, measure: str) -> float:
    """Of one distribution p [C] over exclusive classes."""
    values: list[float] = sorted(p.tolist(), reverse=True)
    if measure == "entropy":
        return 1 - float(torch.distributions.Categorical(probs=p).entropy()) / math.log(len(values))
    return values[0] if measure == "max" else values[0] - values[1]


ShouldExit = Callable[[int, torch.Tensor, list[torch.Tensor]], bool]
"""Timestep, translation [P], and those of earlier checks -> whether to exit."""


def exit_in_time(
    h: torch.Tensor,
    translate: Callable[[int, torch.Tensor], torch.Tensor],
    should_exit: ShouldExit,
    *,
    every: int = 1,
    patience: int = 1,
    open_ended: bool = False,
) -> tuple[int | None, torch.Tensor, int]:
    """When a sequence with states h [T, L, P] exits: timestep or None, the translation, and the number of checks."""
    yes, past, t = 0, list[torch.Tensor](), every - 1
    while t < len(h) - (not open_ended):
        translation = translate(t, h[t])
        yes = yes + 1 if should_exit(t, translation, past) else 0
        past.append(translation)
        if yes == patience:
            return t, translation, len(past)
        t += every
    return None, h[-1, -1], len(past)
