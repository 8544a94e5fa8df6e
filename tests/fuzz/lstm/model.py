"""The LSTM of a case: its weights, what is pruned, and its precision."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

import adaptive_lstm as al
from adaptive_lstm.types import StackShape
from adaptive_lstm.weights.fingerprint import weights_digest
from adaptive_lstm.weights.layout import CellTensors, tensors_of
from adaptive_lstm.weights.precision import PRECISIONS, Precision
from adaptive_lstm.weights.replaced import ReplacedWeights

from ..target import Case

SCALES = {"torch": 1.0, "large": 4.0, "huge": 100.0, "tiny": 1e-4, "zeros": 0.0, "mixed": 1.0, "grid": 1.0,
          "constant units": 1.0}  # fmt: skip


def generator(case: Case, what: str) -> torch.Generator:
    """Random numbers of one part of a case, so that the others stay when that part is made simpler."""
    return torch.Generator().manual_seed(case["seed"] ^ sum(ord(c) << (i % 16) for i, c in enumerate(what)))


def lstm_of(case: Case) -> nn.LSTM:
    """An ``nn.LSTM`` in eval mode."""
    lstm = nn.LSTM(
        case["inputs"], case["hidden"], case["layers"], bias=case["bias"], batch_first=case["batch_first"],
        dropout=case["dropout"], bidirectional=case["bidirectional"], proj_size=case["proj"], dtype=torch.float32,
        device="cpu",
    ).eval()  # fmt: skip
    g, kind = generator(case, "weights"), case["weights"]
    bound = SCALES[kind] * case["hidden"] ** -0.5
    with torch.no_grad():
        for p in lstm.parameters():
            p.copy_(torch.rand(p.shape, generator=g, dtype=torch.float32) * 2 * bound - bound)
            if kind == "mixed":  # rows that span decades
                p.mul_(10.0 ** torch.randint(-3, 2, (len(p), *[1] * (p.dim() - 1)), generator=g))
            elif kind == "grid":  # as after fake quantization in training
                p.copy_((p / bound * 31).round() * (bound / 31))
            elif kind == "constant units":  # of which no gate sees anything but its bias
                p[torch.rand(len(p), generator=g) < 0.3] = 0.0
    return lstm.to(getattr(torch, case["dtype"])).requires_grad_(case["mode"] == "gradients")


def replaced_of(case: Case, lstm: nn.LSTM) -> ReplacedWeights | None:
    """Weights with a pattern of zeros, and units that are constant; None where nothing is pruned."""
    kind = case["pruned"]
    if kind == "no":
        return None
    g, shape = generator(case, "pruned"), al.AdaptiveLSTM.from_lstm(lstm).stack_shape
    cells = [w.to_device(torch.zeros(0, dtype=torch.float32, device="cpu")) for w in tensors_of(lstm)]
    if "unit" in kind:
        live = [_live(shape.hidden_size, kind, g) for _ in cells]
        cells = [_without_units(w, live[k], g) for k, w in enumerate(cells)]
    else:
        cells = [_with_zeros(w, kind, g) for w in cells]
    return ReplacedWeights(tuple(cells), weights_digest(lstm))


def _live(hidden: int, kind: str, g: torch.Generator) -> torch.Tensor:
    return torch.rand(hidden, generator=g) < (0.6 if kind == "unit" else 0.1)


def _without_units(w: CellTensors, live: torch.Tensor, g: torch.Generator) -> CellTensors:
    rows = live.repeat(4)
    w_hh = w.w_hh * rows[:, None]
    if w.w_hr is None:
        w_hh = w_hh * live
    constant = torch.where(live, 0.0, torch.rand(live.shape, generator=g, dtype=torch.float32) - 0.5)
    if w.w_hr is not None:  # pruning puts them there ahead of a projection
        constant = torch.zeros_like(constant)
    return replace(w, w_ih=w.w_ih * rows[:, None], w_hh=w_hh, bias=w.bias * rows, live=live, constant=constant)


def _with_zeros(w: CellTensors, kind: str, g: torch.Generator) -> CellTensors:
    def masked(m: torch.Tensor) -> torch.Tensor:
        if kind == "columns":
            return m * (torch.rand(m.shape[1], generator=g) < 0.5)
        if kind == "unstructured":
            return m * (torch.rand(m.shape, generator=g) < 0.3)
        blocks = torch.rand(-(-m.shape[0] // 32), m.shape[1], generator=g) < 0.3
        return m * blocks.repeat_interleave(32, 0)[: m.shape[0]]

    return replace(w, w_ih=masked(w.w_ih), w_hh=masked(w.w_hh))


def quantize_of(case: Case, shape: StackShape) -> al.Quantize:
    """The precisions of a case."""
    name, g = case["quantize"], generator(case, "quantize")
    scale = (torch.rand(shape.input_size, generator=g, dtype=torch.float32) * 3 + 0.5).tolist()

    def pick(values: tuple[int, ...]) -> int:
        return values[int(torch.randint(len(values), (1,), generator=g))]

    made = {
        "fp32": lambda: al.Quantize(),
        "int8": lambda: al.Quantize("int8"),
        "bf16": lambda: al.Quantize("bf16"),
        "int8, 127 levels": lambda: al.Quantize("int8", levels=127, input_levels=127),
        "int8, 64 levels": lambda: al.Quantize("int8", levels=64, input_levels=pick((1, 64, 65))),
        "int8, weights only": lambda: al.Quantize("int8", levels=0, input_levels=0),
        "int8, static raw": lambda: al.Quantize("int8", raw="int8", raw_scale=scale, raw_levels=pick((1, 64, 8191))),
        "int8, dynamic raw": lambda: al.Quantize("int8", raw="int8", raw_range="dynamic"),
        "int8, bf16 raw": lambda: al.Quantize("int8", raw="bf16", levels=pick((1, 16, 8191)), input_levels=0),
        "raw only": lambda: al.Quantize("fp32", raw="int8", raw_range="dynamic", raw_levels=pick((1, 127, 8191))),
        "mixed": lambda: al.Quantize("int8", matrices=_mixed(shape, g)),
    }  # fmt: skip
    return made[name]()


def _mixed(shape: StackShape, g: torch.Generator) -> dict[str, Precision]:
    kinds = ["weight_ih", "weight_hh"] + (["weight_hr"] if shape.proj_size else [])
    names = [(kind, cell) for kind in kinds for cell in range(shape.num_cells)]
    raw = {f"weight_ih_{shape.name(cell)}" for cell in range(shape.directions)}
    chosen = {}
    for kind, cell in names:
        name = f"{kind}_{shape.name(cell)}"
        of = [p for p in PRECISIONS if not (p == "int8" and name in raw)]  # that needs a range
        chosen[name] = of[int(torch.randint(len(of), (1,), generator=g))]
    return chosen
