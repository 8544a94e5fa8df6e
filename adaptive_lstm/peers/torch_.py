"""torch itself: eager in float32 and bfloat16, dynamic int8, and what torch.compile can do for a step."""

import io
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import UnsupportedError
from .contender import Carried, Engine, Forward, Order
from .silence import quiet

SHAPES = 64  # batch sizes that one compiled step may be specialised to


def fp32(order: Order) -> Engine:
    """Eager float32; a PackedSequence goes in as it is. torch has one number of threads per process: the caller's."""
    return _eager(order.model, torch.float32)


def bf16(order: Order) -> Engine:
    """Eager bfloat16: weights, inputs and state. Runs on every processor, fast on those with bfloat16 instructions."""
    return _eager(order.model.to(torch.bfloat16), torch.bfloat16)


def int8(order: Order) -> Engine:
    """``quantize_dynamic`` of a module around the LSTM: it leaves a bare ``nn.LSTM`` in float32 without a word."""
    if order.model.lstm.proj_size:
        raise UnsupportedError("torch's dynamically quantized LSTM has no projection (proj_size)")
    with quiet():
        model = Carried(_with_bias(order.model.lstm)).eval()
        quantized = import_module("torch.ao.quantization").quantize_dynamic(model, {nn.LSTM}, torch.qint8)
    if isinstance(quantized.lstm, nn.LSTM):
        raise UnsupportedError("quantize_dynamic left the LSTM in float32")
    return _eager(quantized, torch.float32)


def compiled(order: Order) -> Engine:
    """torch.compile (inductor, frozen weights) of a step written out in linear maps; longer sequences run in eager.

    Dynamo does not trace ``nn.LSTM``: ``torch.compile(model)`` leaves it in eager without a word. Made to trace it
    (``allow_rnn``) it calls the same oneDNN kernel, which then repacks its weights; that was 2 to 12 times slower.
    """
    lstm = order.model.lstm
    if lstm.bidirectional or lstm.proj_size:
        raise UnsupportedError("torch.compile leaves nn.LSTM in eager; the step that is written out has one direction")
    step = _compile(WrittenOut(lstm))
    state = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    with quiet(), torch.no_grad():
        step(torch.zeros(1, 1, lstm.input_size), state, state.clone())  # fails here if there is no C++ compiler
    eager = _eager(order.model, torch.float32)

    def forward(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape[1] == 1:
            y, h, c = step(x, h, c)
            return y, h, c
        y, h, c = eager.forward(x, h, c)
        return y, h, c

    return Engine(eager.native, forward, eager.tensor, eager.nbytes, eager.packed)


def _compile(step: nn.Module) -> Callable[..., Any]:
    """Apart from all others: a process has few compilations for all modules of one class together."""
    apart: dict[str, Any] = {"recompile_limit": SHAPES, "isolate_recompiles": True}
    try:
        return torch.compile(step, dynamic=False, fullgraph=True, options={"freezing": True}, **apart)
    except TypeError as error:
        raise UnsupportedError(
            f"torch.compile of torch {torch.__version__} cannot keep several LSTMs apart (isolate_recompiles); "
            "that of 2.13 can"
        ) from error


class WrittenOut(nn.Module):
    """One step of a stack in one direction, as linear maps: x [B, 1, I], h and c [L, B, H]; nn.LSTM's equations."""

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        hidden, inputs = lstm.hidden_size, lstm.input_size
        self.of_x, self.of_h = nn.ModuleList(), nn.ModuleList()
        for k in range(lstm.num_layers):
            self.of_x.append(nn.Linear(inputs if k == 0 else hidden, 4 * hidden))
            self.of_h.append(nn.Linear(hidden, 4 * hidden))
            for one, which in ((self.of_x[k], "ih"), (self.of_h[k], "hh")):
                bias = getattr(lstm, f"bias_{which}_l{k}") if lstm.bias else torch.zeros(4 * hidden)
                one.load_state_dict({"weight": getattr(lstm, f"weight_{which}_l{k}"), "bias": bias})
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        below, hs, cs = x[:, 0], [], []
        for k, (of_x, of_h) in enumerate(zip(self.of_x, self.of_h, strict=True)):
            i, f, g, o = (of_x(below) + of_h(h[k])).chunk(4, 1)
            cs.append(torch.sigmoid(f) * c[k] + torch.sigmoid(i) * torch.tanh(g))
            below = torch.sigmoid(o) * torch.tanh(cs[-1])
            hs.append(below)
        return below[:, None], torch.stack(hs), torch.stack(cs)


def _with_bias(lstm: nn.LSTM) -> nn.LSTM:
    """The same function with biases, of zeros where it has none: the quantized LSTM insists on them."""
    if lstm.bias:
        return lstm
    form = {"batch_first": True, "bidirectional": lstm.bidirectional}
    out = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, **form).requires_grad_(False)
    zeros = {name: torch.zeros_like(values) for name, values in out.state_dict().items() if name.startswith("bias")}
    out.load_state_dict(zeros | lstm.state_dict())
    return out


def _eager(model: Carried, dtype: torch.dtype) -> Engine:
    def packed(x: PackedSequence, h: Tensor, c: Tensor) -> tuple[PackedSequence, Tensor, Tensor]:
        y, h, c = forward(x.to(dtype), h.to(dtype), c.to(dtype))
        return y.to(torch.float32), h.float(), c.float()

    forward = _without_gradients(model)
    return Engine(
        native=lambda tensor: tensor.detach().to(dtype, copy=True).contiguous(),
        forward=forward,
        tensor=lambda tensor: tensor.float(),
        nbytes=_stored(model),
        packed=packed,
    )


def _without_gradients(model: Callable[..., Any]) -> Forward:
    """The model as it is where the caller has switched gradients off already, which a race does for its speed."""

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        if not torch.is_grad_enabled():
            y, h, c = model(x, h, c)
        else:
            with torch.no_grad():
                y, h, c = model(x, h, c)
        return y, h, c

    return forward


def _stored(model: nn.Module) -> int:
    """Bytes of the weights in a file, which is the only form that quantized ones tell their size in."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()
