"""The hidden state that every timestep of a packed batch starts from."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def before(h: torch.Tensor, alive: Sequence[int], reverse: bool, start: torch.Tensor | None) -> torch.Tensor:
    """The h that every timestep starts from.

    Args:
        h: [n, P] the states of one direction after every timestep, packed.
        alive: rows alive at each timestep.
        reverse: whether the direction runs from the last timestep to the first.
        start: h_0 [B, P], or None: zeros.
    """
    first = h.new_zeros(alive[0], h.shape[1]) if start is None else start
    begins = torch.tensor([0, *alive]).cumsum(0)
    out = torch.empty_like(h)
    for t, count in enumerate(alive):
        other = t + 1 if reverse else t - 1
        known = min(count, alive[other]) if 0 <= other < len(alive) else 0
        here = int(begins[t])
        if known:
            out[here : here + known] = h[int(begins[other]) : int(begins[other]) + known]
        out[here + known : here + count] = first[known:count]
    return out
