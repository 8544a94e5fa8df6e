"""torch itself: eager float32 and bfloat16, dynamic int8, and torch.compile of a single step."""

import io
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import UnsupportedError
from .contender import BuildRequest, Engine, ExplicitStateLSTM, Forward
from .silence import no_warnings

MAX_BATCH_SIZES = 64  # that one compiled step may be specialised for


def fp32(request: BuildRequest) -> Engine:
    """Eager float32; takes a PackedSequence as it is. Runs on the caller's number of torch threads."""
    return _eager(request.model, torch.float32)


def bf16(request: BuildRequest) -> Engine:
    """Eager bfloat16: weights, inputs and state. Runs on every processor; fast only with bfloat16 instructions."""
    return _eager(request.model.to(torch.bfloat16), torch.bfloat16)


def int8(request: BuildRequest) -> Engine:
    """``quantize_dynamic`` of a module around the LSTM, because it silently leaves a bare ``nn.LSTM`` in float32."""
    if request.model.lstm.proj_size:
        raise UnsupportedError("torch's dynamically quantized LSTM has no projection (proj_size)")
    with no_warnings():
        model = ExplicitStateLSTM(with_bias(request.model.lstm)).eval()
        quantized = import_module("torch.ao.quantization").quantize_dynamic(model, {nn.LSTM}, torch.qint8)
    if isinstance(quantized.lstm, nn.LSTM):
        raise UnsupportedError("quantize_dynamic left the LSTM in float32")
    return _eager(quantized, torch.float32)


def compiled(request: BuildRequest) -> Engine:
    """torch.compile (inductor, frozen weights) of a step written as linear maps; longer sequences run eagerly.

    Dynamo does not trace ``nn.LSTM``: ``torch.compile(model)`` silently leaves it eager. With ``allow_rnn`` it calls
    the same oneDNN kernel, which then repacks its weights at every call and is slower than eager.
    """
    lstm = request.model.lstm
    if lstm.bidirectional or lstm.proj_size:
        raise UnsupportedError(
            "torch.compile leaves nn.LSTM eager; the step compiled instead has one direction, no projection"
        )
    step = _compile(WrittenOut(lstm))
    state = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    with no_warnings(), torch.no_grad():
        step(torch.zeros(1, 1, lstm.input_size), state, state.clone())  # fails here if there is no C++ compiler
    eager = _eager(request.model, torch.float32)

    def forward(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if x.shape[1] == 1:
            y, h, c = step(x, h, c)
            return y, h, c
        y, h, c = eager.forward(x, h, c)
        return y, h, c

    return Engine(eager.native, forward, eager.tensor, eager.nbytes, eager.packed)


def _compile(step: nn.Module) -> Callable[..., Any]:
    """Isolated: otherwise all modules of one class share the process's few recompilations."""
    isolated: dict[str, Any] = {"recompile_limit": MAX_BATCH_SIZES, "isolate_recompiles": True}
    try:
        return torch.compile(step, dynamic=False, fullgraph=True, options={"freezing": True}, **isolated)
    except TypeError as error:
        raise UnsupportedError(
            f"torch.compile of torch {torch.__version__} cannot compile several LSTMs in one process "
            "(isolate_recompiles); torch 2.13 can"
        ) from error


class WrittenOut(nn.Module):
    """One step of a unidirectional stack as linear maps, by nn.LSTM's equations: x [B, 1, I], h and c [L, B, H]."""

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


def with_bias(lstm: nn.LSTM) -> nn.LSTM:
    """The same function with biases, zeros if it has none: the quantized LSTM requires them."""
    if lstm.bias:
        return lstm
    form = {"batch_first": True, "bidirectional": lstm.bidirectional}
    out = nn.LSTM(lstm.input_size, lstm.hidden_size, lstm.num_layers, **form).requires_grad_(False)
    zeros = {name: torch.zeros_like(values) for name, values in out.state_dict().items() if name.startswith("bias")}
    out.load_state_dict(zeros | lstm.state_dict())
    return out


def _eager(model: ExplicitStateLSTM, dtype: torch.dtype) -> Engine:
    def packed(x: PackedSequence, h: Tensor, c: Tensor) -> tuple[PackedSequence, Tensor, Tensor]:
        y, h, c = forward(x.to(dtype), h.to(dtype), c.to(dtype))
        return y.to(torch.float32), h.float(), c.float()

    forward = without_gradients(model)
    return Engine(
        native=lambda tensor: tensor.detach().to(dtype, copy=True).contiguous(),
        forward=forward,
        tensor=lambda tensor: tensor.float(),
        nbytes=_stored(model),
        packed=packed,
    )


def without_gradients(model: Callable[..., Any]) -> Forward:
    """Switch gradients off unless the caller has: a timed call then runs the model itself and nothing else."""

    def forward(x: Any, h: Any, c: Any) -> tuple[Any, Any, Any]:
        if not torch.is_grad_enabled():
            y, h, c = model(x, h, c)
        else:
            with torch.no_grad():
                y, h, c = model(x, h, c)
        return y, h, c

    return forward


def _stored(model: nn.Module) -> int:
    """Bytes of the weights in a file: quantized weights report their size in no other way."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()
