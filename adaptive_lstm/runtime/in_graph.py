"""An LSTM in a graph that is being made of a model: one operation, which runs what is set.

``torch.compile``, ``make_fx`` and fake tensors are shown ``adaptive_lstm::lstm_here``, which calls the module, found by
its handle; ``torch.export`` and ``torch.jit.trace`` are shown ``adaptive_lstm::lstm``, which holds a copy of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch._C import _get_tracing_state, _len_torch_dispatch_stack
from torch._C._functorch import maybe_current_level
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad
from torch.compiler import is_compiling, is_dynamo_compiling
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import _disable_current_modes

from ..errors import InputError, UnsupportedError
from ..execution.route import needs_gradients

if TYPE_CHECKING:
    from .lstm import AdaptiveLSTM

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_LEFT_OUT = (
    "adaptive_lstm: gradients, autocast and packed sequences are left out of compiled graphs; wrap inference in "
    "torch.no_grad() or torch.inference_mode()"
)
SIZE = 32  # bytes of the digest that the bytes of an LSTM begin with

_copies: WeakValueDictionary[bytes, torch.Tensor] = WeakValueDictionary()
_numbers = itertools.count(1)
_by_handle: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()


def handle_of(lstm: AdaptiveLSTM) -> str:
    """The name by which operations of this process find an LSTM."""
    if lstm._handle is None:
        lstm.__dict__["_handle"] = str(next(_numbers))
    _by_handle[str(lstm._handle)] = getattr(lstm, "cell", lstm)  # a cell is what stays
    return str(lstm._handle)


def by_handle(handle: str) -> AdaptiveLSTM:
    """The LSTM with a handle. Raises ``InputError``."""
    found: Any = _by_handle.get(handle)
    if found is None:
        raise InputError(
            "a graph calls an AdaptiveLSTM that is not in this process any more; keep the model that was compiled or "
            "traced, or use torch.export, whose programs hold a copy of it"
        )
    lstm: AdaptiveLSTM = getattr(found, "as_lstm", found)
    return lstm


def run(x: torch.Tensor, hx: Any, handle: str) -> Result:
    """``output, h_n, c_n`` of a call of the LSTM with a handle; all contiguous."""
    lstm = by_handle(handle)
    direct = lstm._direct
    out = None if direct is None else direct(lstm, x, hx)
    if out is None:
        with torch.no_grad():
            out = lstm.forward(x, hx)
    y, (h, c) = out
    return y.contiguous(), h.contiguous(), c.contiguous()


def in_graph(lstm: AdaptiveLSTM, x: Any, hx: Any) -> Any:
    """``output, (h_n, c_n)`` as one operation of a graph; None: torch's own LSTM must stand there.

    That stands for what needs gradients, autocast and packed sequences; ``torch.compile`` leaves it out of its graph.

    Raises:
        InputError: sizes that do not fit.
        UnsupportedError: a policy or a head in Python, which no file can hold.
    """
    if not _fits(lstm, x, hx):
        if is_dynamo_compiling() and not _exports():
            torch._dynamo.graph_break(msg=_LEFT_OUT)
        return None
    directions = 2 if lstm.bidirectional else 1  # stack_shape computes what it is asked for, which no compiler traces
    cells, output, hidden = lstm.num_layers * directions, lstm.proj_size or lstm.hidden_size, lstm.hidden_size
    _check_input(lstm, x)
    h_0, c_0 = (None, None) if hx is None else hx
    if hx is not None:
        rows = () if x.dim() == 2 else (x.shape[0 if lstm.batch_first else 1],)
        _check_state("h_0", h_0, (cells, *rows, output), x)
        _check_state("c_0", c_0, (cells, *rows, hidden), x)
    sizes = [cells, directions * output, output, hidden]
    if _exports() or _get_tracing_state() is not None:
        model, digest = _copy(lstm)
        y, h, c = torch.ops.adaptive_lstm.lstm(x, h_0, c_0, model, digest, sizes, lstm.batch_first)
    else:
        handle = lstm._handle if is_dynamo_compiling() else handle_of(lstm)
        y, h, c = torch.ops.adaptive_lstm.lstm_here(x, h_0, c_0, handle, sizes, lstm.batch_first)
    return y, (h, c)


def _fits(lstm: AdaptiveLSTM, x: Any, hx: Any) -> bool:
    """Whether an operation gives what a call gives."""
    given = () if hx is None else hx
    if not isinstance(x, torch.Tensor) or not isinstance(given, tuple | list) or len(given) not in (0, 2):
        return False
    if lstm.training or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if is_dynamo_compiling():  # whose tensors are all plain, and whose graphs follow the modes of autograd
        if _exports():
            return lstm._handle is not None and _has_copy(lstm, x)
        return lstm._handle is not None and not (torch.is_grad_enabled() and needs_gradients(lstm, x, hx))
    if maybe_current_level() is not None or forward_ad._current_level >= 0:
        return False
    if _exports() or _get_tracing_state() is not None:
        return _has_copy(lstm, x)
    recorded = isinstance(x, FakeTensor) or _len_torch_dispatch_stack() > 0
    own = all(type(p) is nn.Parameter for p in lstm._parameters.values())  # not those that a tool computes with
    return recorded and own and not (torch.is_grad_enabled() and needs_gradients(lstm, x, hx))


def _has_copy(lstm: AdaptiveLSTM, x: torch.Tensor) -> bool:
    """Whether a copy stands for an LSTM: exact calls in other dtypes are torch's, and ONNX has LSTMs of its own."""
    native = x.dtype is torch.float32 or not lstm.plan.exact
    return native and x.dtype is lstm.weight_ih_l0.dtype and not _exports_onnx()


def _check_input(lstm: AdaptiveLSTM, x: torch.Tensor) -> None:
    if x.dim() not in (2, 3) or x.shape[-1] != lstm.input_size:
        raise InputError(
            f"LSTM: got an input of shape {tuple(x.shape)}, expected [T, B, I], [B, T, I] with batch_first, or [T, I], "
            f"with I = {lstm.input_size}"
        )


def _check_state(name: str, state: Any, want: tuple[int, ...], x: torch.Tensor) -> None:
    if not isinstance(state, torch.Tensor):
        raise InputError(f"{name}: got {type(state).__name__}, expected a tensor of shape {want}")
    if state.dim() != len(want) or any(a != b for a, b in zip(state.shape, want, strict=True)):
        raise InputError(f"{name}: got shape {tuple(state.shape)}, expected {want}")
    if state.dtype is not x.dtype:
        raise InputError(f"{name}: got {state.dtype}, expected {x.dtype}")


def _exports() -> bool:
    """Whether ``torch.export`` is running."""
    return bool(_is_exporting())


def _before_2_7() -> bool:
    """As ``torch.compiler.is_exporting``, but for exports by the compiler, which hold the operation of this process."""
    return is_compiling() and not is_dynamo_compiling()


def _exports_onnx() -> bool:
    """Whether ``torch.onnx.export`` is running; asked outside of what the compiler traces, where torch says no."""
    return bool(torch.onnx.is_in_onnx_export())


_is_exporting: Any = getattr(torch.compiler, "is_exporting", _before_2_7)


# ------------------------------------------------------------------------------------------------------- the copy


def _copy(lstm: AdaptiveLSTM) -> tuple[torch.Tensor, str]:
    """What the operation holds: bytes, and the digest that they begin with."""
    handle: Any = lstm._handle if is_dynamo_compiling() else handle_of(lstm)
    return _packed(handle), _digest(handle)


def _packed(handle: str) -> torch.Tensor:
    """An LSTM as bytes, uint8 [n], made as if nobody traced; the same tensor for the same content."""
    with _nobody_traces(), _own_weights(by_handle(handle)):
        made: torch.Tensor = torch.ops.adaptive_lstm.packed(handle)
        digest = made.numpy()[:SIZE].tobytes()
        found = _copies.setdefault(digest, made)
        if not torch.equal(found, made):  # somebody wrote into a program that holds it
            found = _copies[digest] = made
        return found


def _digest(handle: str) -> str:
    """The digest at the beginning of the bytes, in hexadecimal."""
    data = _packed(handle)
    with _nobody_traces():
        return data.numpy()[:SIZE].tobytes().hex()


_constants: Any = (_packed, _digest, _exports_onnx)
for _constant in _constants:  # as torch._dynamo.assume_constant_result does it: called while tracing
    _constant._dynamo_marked_constant = True


@contextmanager
def _nobody_traces() -> Iterator[None]:
    tracing, set_tracing = _get_tracing_state(), cast("Any", torch._C)._set_tracing_state
    set_tracing(None)
    try:
        with torch._C.DisableTorchFunction(), _disable_current_modes(), torch.no_grad():
            yield
    finally:
        set_tracing(tracing)


@contextmanager
def _own_weights(lstm: AdaptiveLSTM) -> Iterator[None]:
    """Inside, an LSTM has the weights in whose place ``torch.export`` has put fake tensors."""
    holder: nn.Module = getattr(lstm, "cell", lstm)  # of a cell in the form of an LSTM
    state = dict(itertools.chain(holder.named_parameters(), holder.named_buffers()))
    fakes = {name: value for name, value in state.items() if isinstance(value, FakeTensor)}
    behind: dict[int, torch.Tensor] = {}
    for mode in {value.fake_mode for value in fakes.values()}:
        converter = mode.fake_tensor_converter
        for tensor, number in converter.meta_converter.describer.lookup_tensor.items():
            behind[id(converter.tensor_memo.get(number))] = tensor
    if any(id(fake) not in behind for fake in fakes.values()):
        raise UnsupportedError("torch.export of a model with fake weights: there are no values to keep in the program")
    with _reparametrize_module(holder, {name: behind[id(fake)] for name, fake in fakes.items()}):
        yield
