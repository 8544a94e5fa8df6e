"""``nn.LSTM.forward`` where torch serves: plain calls, and the tools that trace or transform a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch._C._functorch import maybe_current_level
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, UnsupportedError
from ..execution.batch import Batch
from ..execution.plain import is_dense, not_dense
from ..execution.route import NOT_PLAIN
from ..types import Route
from ..weights.layout import shape_of

if TYPE_CHECKING:
    from .lstm import AdaptiveLSTM

SCRIPT = (
    "torch.jit.script compiles Python source and the native core has none; script the model that was given to adapt() "
    "(adapt returned a copy), which holds the plain float32 LSTM, or use torch.jit.trace or torch.export"
)


def by_torch(lstm: AdaptiveLSTM, route: Route, x: Any, hx: Any) -> Any:
    """The output of ``plain_forward``; in a symbolic trace the LSTM becomes one node, as torch's own do.

    Raises:
        InputError: x or hx is no dense tensor, or hx no pair.
        UnsupportedError: a symbolic trace starts at the LSTM itself, or torch cannot transform LSTMs like this.
    """
    if isinstance(x, Proxy):
        return node_of(lstm, x, hx)
    _check(x, hx)
    if route is not NOT_PLAIN:
        return lstm.plain_forward(x, hx)
    if maybe_current_level() is None:
        with _without_onednn() if torch.is_grad_enabled() else nullcontext():
            return lstm.plain_forward(x, hx)
    try:
        return lstm.plain_forward(x, hx)
    except RuntimeError as error:  # torch.func maps oneDNN's LSTM over a batch, and differentiates torch's other one
        with suppress(RuntimeError), _without_onednn():
            return lstm.plain_forward(x, hx)
        raise UnsupportedError(
            f"torch.func cannot transform an LSTM like this ({str(error).splitlines()[0]}); instead of vmap, put the "
            "mapped dimension into the batch"
        ) from error


def checked_batch(lstm: nn.LSTM, x: Any, hx: Any) -> Batch:
    """The arguments of a call that another runner than torch serves.

    Raises:
        InputError: what nothing but torch could take, or torch neither.
    """
    _check(x, hx)
    values, like = x.data if isinstance(x, PackedSequence) else x, next(lstm.parameters())
    if values.dtype is not like.dtype or values.device != like.device:
        raise InputError(
            f"LSTM: got an input of {values.dtype} on {values.device}, expected {like.dtype} on {like.device} as its "
            "weights"
        )
    return Batch.of(x, hx, shape_of(lstm), lstm.batch_first, graph=torch.is_grad_enabled())


def warn_of_torch(route: Route) -> None:
    """Warn that nothing of what is set served a call."""
    warnings.warn(
        f"adaptive_lstm: nn.LSTM itself served this call ({route.reason}), although a precision, replaced weights or a "
        "policy is set: its outputs are not those of the compressed model. Shown once per LSTM.",
        UserWarning,
        stacklevel=5,
    )


def _check(x: Any, hx: Any) -> None:
    if not isinstance(x, torch.Tensor | PackedSequence):
        raise InputError(f"LSTM: got {type(x).__name__}, expected a torch.Tensor or a PackedSequence")
    given = hx if isinstance(hx, tuple | list) else ()
    if hx is not None and not (len(given) == 2 and all(isinstance(state, torch.Tensor) for state in given)):
        kinds = [type(state).__name__ for state in given]
        raise InputError(f"got hx of type {type(hx).__name__} {kinds or ''}, expected (h_0, c_0)")
    values = x.data if isinstance(x, PackedSequence) else x
    if not isinstance(values, torch.Tensor):
        raise InputError(f"got a PackedSequence with data of type {type(values).__name__}, expected a torch.Tensor")
    for tensor in (values, *given):
        if not is_dense(tensor):
            raise InputError(f"LSTM: got {not_dense(tensor)}")


def node_of(module: nn.Module, x: Proxy, hx: Any) -> Any:
    """A call of a module in a symbolic trace.

    Raises:
        UnsupportedError: the trace starts at the module itself.
    """
    try:
        path: str = cast("Any", x.tracer).path_of_module(module)
    except NameError:
        path = ""
    if not path:
        raise UnsupportedError(
            "torch.fx cannot trace through an LSTM; trace a model that holds it, where it becomes one call_module node"
        )
    return x.tracer.create_proxy("call_module", path, (x,) if hx is None else (x, hx), {})


@contextmanager
def _without_onednn() -> Iterator[None]:
    """oneDNN's LSTM is one operation whose derivative AOTAutograd cannot trace; torch's other one is traced."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
