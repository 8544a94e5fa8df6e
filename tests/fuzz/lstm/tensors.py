"""Inputs and states of a case, and how they lie in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from ..target import Case
from .model import generator

Given = tuple[torch.Tensor, torch.Tensor]


def signal(case: Case, steps: int, what: str = "input") -> torch.Tensor:
    """[T, B, I] float32."""
    g, kind = generator(case, what), case["signal"]
    size = (steps, case["batch"], case["inputs"])

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float32)

    if kind in ("drift", "silence"):
        x = noise(1, *size[1:]) + (0.1 * noise(*size)).cumsum(0)
        if kind == "silence":
            x[steps // 2 :] = 0.0
        return x
    if kind in ("jumps", "repeats"):
        jumps = noise(*size) * (torch.rand(steps, case["batch"], 1, generator=g) < 0.3)
        jumps[0] = noise(*size[1:])
        return jumps.cumsum(0) + (0.01 * noise(*size) if kind == "jumps" else 0.0)
    scale = {"noise": 1.0, "large": 30.0, "extreme": 1e36, "tiny": 1e-6, "denormal": 1e-39}[kind]
    return (noise(*size).double() * scale).float()


def lay_out(x: torch.Tensor, kind: str, g: torch.Generator) -> torch.Tensor:
    """The same values, or for "expanded" and "zero tensor" others, in a kind of memory."""
    if kind == "transposed":
        return x.permute(*reversed(range(x.dim()))).contiguous().permute(*reversed(range(x.dim())))
    if kind in ("strided", "sliced"):
        every = 2 if kind == "strided" else 1
        wide = torch.randn([every * n + 3 for n in x.shape], generator=g, dtype=torch.float32).to(x.dtype)
        part = wide[tuple(slice(1, 1 + every * n, every) for n in x.shape)]
        return part.copy_(x)
    if kind == "expanded":
        return x[:1].expand(x.shape) if x.dim() > 1 else x
    if kind == "negative bit":
        return torch._neg_view(-x)
    if kind == "imaginary part" and x.dtype in (torch.float32, torch.float64):
        return torch.complex(torch.zeros_like(x), -x).conj().imag
    if kind == "zero tensor":
        return torch._efficientzerotensor(x.shape, dtype=x.dtype, device="cpu")
    if kind == "inference":
        with torch.inference_mode():
            return x.clone()
    if kind == "parameter":
        return nn.Parameter(x.clone(), requires_grad=False)
    return x


def plain(x: torch.Tensor) -> torch.Tensor:
    """The same values in memory of their own."""
    with torch.no_grad():
        return (
            torch.zeros(x.shape, dtype=x.dtype, device="cpu")
            if x._is_zerotensor()
            else x.detach().resolve_neg().clone()
        )


def narrowed(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In another dtype, within its range."""
    largest = torch.finfo(dtype).max / 4
    return x.double().clamp(-largest, largest).to(dtype)


def inputs(case: Case) -> tuple[Any, Any]:
    """The input and, with the same values in plain memory, its twin."""
    g, dtype = generator(case, "memory"), getattr(torch, case["dtype"])
    x = narrowed(signal(case, case["steps"]), dtype)
    if case["layout"] == "unbatched":
        x = lay_out(x[:, 0].contiguous(), case["memory"], g)
        return x, plain(x)
    if case["batch_first"]:
        x = x.transpose(0, 1).contiguous()
    if case["layout"] == "padded":
        x = lay_out(x, case["memory"], g)
        return x, plain(x)
    least = int(torch.randint(1, case["steps"] + 1, (1,), generator=g))
    lengths = torch.randint(least, case["steps"] + 1, (case["batch"],), generator=g)
    lengths[int(torch.randint(case["batch"], (1,), generator=g))] = case["steps"]
    ordered = case["layout"] == "packed"
    lengths = lengths.sort(descending=True).values if ordered else lengths
    packed = pack_padded_sequence(x, lengths, batch_first=case["batch_first"], enforce_sorted=ordered)
    data = lay_out(packed.data, case["memory"], g)
    return (PackedSequence(data, *packed[1:]), PackedSequence(plain(data), *packed[1:]))


def given(case: Case) -> tuple[Given | None, Given | None]:
    """(h_0, c_0) and its plain twin, or None."""
    if case["given"] == "none":
        return None, None
    g, dtype = generator(case, "given"), getattr(torch, case["dtype"])
    cells = case["layers"] * (2 if case["bidirectional"] else 1)
    rows = () if case["layout"] == "unbatched" else (case["batch"],)
    scale = {"zeros": 0.0, "inside": 1.0, "beyond": 3.0, "far beyond": 1e3}[case["given"]]

    def state(width: int, limit: float) -> torch.Tensor:
        values = (torch.rand(cells, *rows, width, generator=g, dtype=torch.float32) * 2 - 1) * scale
        return lay_out(values.clamp(-limit, limit).to(dtype), case["memory"], g)

    h, c = state(case["proj"] or case["hidden"], float("inf")), state(case["hidden"], float("inf"))
    return (h, c), (plain(h), plain(c))
