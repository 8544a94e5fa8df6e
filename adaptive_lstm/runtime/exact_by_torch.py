"""Exact calls in dtypes that torch serves, without the questions that ``nn.LSTM.forward`` and ``decide`` ask anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import is_grad_enabled
from torch._C import _get_tracing_state, _is_any_autocast_enabled
from torch.compiler import is_compiling

from ..execution.compiled import Compiled
from ..execution.plain import is_freed, is_plain

if TYPE_CHECKING:
    from .lstm import AdaptiveLSTM


def exact_by_torch(lstm: AdaptiveLSTM, compiled: Compiled | None, x: Any, hx: Any) -> Any:
    """``output, (h_n, c_n)`` as ``nn.LSTM.forward`` gives them, from the same operation; None: ask what else there is.

    A short call takes as long as its Python code, so what is asked here is less than what torch asks.

    Args:
        lstm: the module that is called.
        compiled: what serves it.
        x, hx: the arguments of the call.
    """
    executor = None if compiled is None else compiled.executor
    if executor is None or executor.call_route.by != "torch" or hx is not None or lstm.training or is_grad_enabled():
        return None
    if _get_tracing_state() is not None or is_compiling() or _is_any_autocast_enabled():
        return None
    if not isinstance(x, torch.Tensor) or not is_plain(x) or x.dtype is not executor.dtype or x.dim() != 3:
        return None
    outer, inner, features = x.shape
    if not (outer and inner and x.is_cpu and executor.on_cpu) or features != lstm.input_size or is_freed(x):
        return None
    named, flat = lstm._parameters, cast("list[torch.Tensor]", lstm._flat_weights)
    for weight, ref, name in zip(flat, lstm._flat_weight_refs, lstm._flat_weights_names, strict=True):
        if ref is None or ref() is not weight or named.get(name) is not weight or weight.dtype is not x.dtype:
            return None  # computed by a hook, or replaced
    cells, rows = lstm.num_layers * (2 if lstm.bidirectional else 1), outer if lstm.batch_first else inner
    c = x.new_zeros((cells, rows, lstm.hidden_size))
    h = x.new_zeros((cells, rows, lstm.proj_size)) if lstm.proj_size else c
    y, h_n, c_n = torch.lstm(
        x, (h, c), flat, lstm.bias, lstm.num_layers, 0.0, False, lstm.bidirectional, lstm.batch_first
    )
    lstm.__dict__["_last"] = (executor.call_route, torch.get_num_threads(), outer * inner, None, None)
    return y, (h_n, c_n)
