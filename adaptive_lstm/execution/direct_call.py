"""A call as one native entry, where nothing is left to decide: short calls take no longer than they must."""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch._C import _get_tracing_state, _is_any_autocast_enabled, _len_torch_dispatch_stack
from torch._C._functorch import maybe_current_level
from torch.autograd import forward_ad

from .contents import HashedContents
from .fingerprint import Fingerprint
from .threads import get_num_threads

if TYPE_CHECKING:
    from .. import _native
    from .executor import Executor

HOOKS = ("forward", "forward_pre", "backward", "backward_pre")  # of nn.Module, and of all modules

DirectCall = Callable[..., Any]
"""(module, input, hx=None) -> as its ``forward``, or None: ``nn.Module.__call__`` and ``route.decide`` go on."""


class Monitor(Protocol):
    """Is told the rates of every run."""

    def take(self, activity: float, ran: float, exits: float, rows: int) -> None:
        """Shares of columns computed, of timesteps with matrix work and of rows that exited, in a run of ``rows``."""


@dataclass(frozen=True)
class Bypassed:
    """What a direct call goes past; it serves only while none of it does anything.

    ``module_class``: the class whose instances are called so: of ``nn.LSTM``, or of ``nn.LSTMCell``.
    ``absent``: attributes of the module that must be missing, None or an empty dictionary.
    ``methods``: of it and of what it inherits, by owner and name, as they are defined.
    """

    module_class: type[nn.Module]
    absent: tuple[str, ...]
    methods: tuple[tuple[Any, str, Any], ...]

    @staticmethod
    def by(module_class: type[nn.Module], *absent: str) -> Bypassed:
        """What calls of a class go past: its ``forward`` and its own attributes, and what ``nn.Module`` does."""
        methods = (nn.Module, "__call__"), (nn.Module, "_call_impl"), (module_class, "forward")
        hooks = (f"_{kind}_hooks" for kind in HOOKS)
        return Bypassed(
            module_class,
            (*absent, "forward", "_compiled_call_impl", *hooks),
            tuple((owner, name, getattr(owner, name)) for owner, name in methods),
        )


def direct_call(
    lstm: nn.LSTM, executor: Executor, fingerprint: Fingerprint, bypassed: Bypassed | None, monitor: Monitor | None
) -> DirectCall | None:
    """Serves calls of one compiled stack with plain tensors in eval mode, for as long as the weights are as they were.

    It answers None wherever ``decide`` might choose anybody but the native core, or ``Batch.of`` refuse the arguments.

    Args:
        lstm: the module, or a cell in the form of one.
        executor: its compiled stack.
        fingerprint: of its weights.
        bypassed: what such a call goes past; None: no call may go past its Python code, as that of a subclass.
        monitor: what the module's attribute ``_monitor`` holds; calls are left to others while it holds another.

    Returns:
        None if no call can be served like that: another runner, weights that are computed or compared at
        every call, or a torch whose tensors only Python can read.
    """
    if bypassed is None:
        return None
    if executor.call_route.by != "native" or executor.computes_in is not executor.dtype or fingerprint.dear:
        return None
    weights, stack, access = fingerprint.stored(lstm), executor.native, _torch()
    if weights is None or stack is None or access is None or isinstance(fingerprint.contents, HashedContents):
        return None
    if executor.policy.split is not None:
        return None
    one_step = executor.shape.one_step
    if one_step:  # by the names of the cell
        weights = [(name.removesuffix("_l0"), w, address, version) for name, w, address, version in weights]
    trial = executor.trial
    return stack.direct_call(
        access,
        _native_form(bypassed),
        weights=weights,
        contents=fingerprint.contents,
        contested=-1 if trial is None else trial.small,
        one_step=one_step,
        states=not executor.skips_over_time,  # there, calls are counted (runtime.short_calls)
        counts=executor.counts,
        most_threads=get_num_threads,
        route=executor.call_route,
        policy=executor.policy,
        monitor=monitor,
    )


@functools.cache
def _native_form(bypassed: Bypassed) -> _native.Bypassed:
    from .. import _native

    empty = [getattr(nn.modules.module, f"_global_{kind}_hooks") for kind in HOOKS]
    return _native.Bypassed(
        bypassed.module_class,
        absent=list(map(sys.intern, bypassed.absent)),
        empty=empty,
        methods=[
            (torch.compiler, sys.intern("_is_compiling_flag"), False),
            *((owner, sys.intern(name), method) for owner, name, method in bypassed.methods),
        ],
    )


@functools.cache
def _torch() -> _native.Torch | None:
    """How to read and make torch's tensors without Python: by the C functions of DLPack, which torch has from 2.10."""
    from .. import _native

    exchange = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    empty = getattr(getattr(getattr(torch._C, "_dynamo", None), "guards", None), "_empty_strided_cpu", None)
    if exchange is None or empty is None or not hasattr(torch.compiler, "_is_compiling_flag"):
        return None
    try:
        return _native.Torch(
            tensor=torch.Tensor,
            parameter=nn.Parameter,
            exchange=exchange,
            empty=empty,
            float32=torch.float32,
            intervenes=[_get_tracing_state, _is_any_autocast_enabled, _len_torch_dispatch_stack, maybe_current_level],
            grad=torch.is_grad_enabled,
            threads=torch.get_num_threads,
            forward_ad=forward_ad,
            version=torch.Tensor._version,
            requires_grad=torch.Tensor.requires_grad,
            is_neg=torch.Tensor.is_neg,
        )
    except ValueError:  # a later table than these
        return None


# What these hold would outlive the extension, which then tells of leaks.
atexit.register(_native_form.cache_clear)
atexit.register(_torch.cache_clear)
