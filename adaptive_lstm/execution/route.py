"""Who serves a call: the native core, the readable executor, both in turn, or torch; decided here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import is_grad_enabled, nn
from torch._C import _get_tracing_state, _is_any_autocast_enabled
from torch.compiler import is_compiling
from torch.nn.parameter import is_lazy
from torch.nn.utils.rnn import PackedSequence

from ..policies import Parts, Policy, parts
from ..types import Route, StackShape
from .backend import native
from .native_policy import python_part, runs_natively
from .plain import is_plain

if TYPE_CHECKING:
    from .compiled import Compiled
    from .executor import Executor
    from .torch_choice import Contest

NATIVE = Route("native")
TRAINING = Route("torch", "training mode")
TRACING = Route("torch", "tracing")
EMPTY = Route("torch", "empty input")
AUTOCAST = Route("torch", "autocast")
META = Route("torch", "the meta device, whose tensors hold no values")
NOT_PLAIN = Route("torch", "an input is not plain memory (traced, transformed or differentiated in forward mode)")
GRADIENTS = Route("torch", "gradients needed (wrap inference in torch.no_grad() or torch.inference_mode())")
FOREIGN = Route("torch", "input of another dtype or device")  # raises torch's own error
FASTER = Route("torch", "measured faster for this batch")
TIMED = Route("torch", "timed for this batch, in turn with the native core")
CHANGING = Route("torch", "the weights change at every call")

THROUGH_FLOAT32 = frozenset({torch.bfloat16, torch.float16, torch.float64})
"""Dtypes of LSTMs that the kernels run in float32; what they return is in the dtype again."""


def decide(
    lstm: nn.LSTM,
    compiled: Callable[[torch.Tensor], Compiled],
    input: Any,  # noqa: A002 (torch's name)
    hx: Any,
) -> tuple[Route, Executor | None, Contest | None]:
    """Who serves one call, the compiled stack if it is not torch, and the contest that the call is timed for.

    Args:
        lstm: the module that is called.
        compiled: packs its weights if they have changed; not called where torch must serve anyway.
        input, hx: the arguments of the call.
    """
    if lstm.training:
        return TRAINING, None, None
    if _get_tracing_state() is not None or is_compiling():
        return TRACING, None, None
    x = input.data if isinstance(input, PackedSequence) else input
    if not isinstance(x, torch.Tensor) or (type(x) is not torch.Tensor and is_lazy(x)) or x.numel() == 0:
        return EMPTY, None, None
    if not is_plain(x) or (hx is not None and not _plain_states(hx)):
        return NOT_PLAIN, None, None
    on_cpu = x.is_cpu
    if not on_cpu and x.is_meta:
        return META, None, None
    if _is_any_autocast_enabled() and _autocasts(x.device.type):
        return AUTOCAST, None, None
    if is_grad_enabled() and needs_gradients(lstm, x, hx):
        return GRADIENTS, None, None
    found = compiled(x)
    executor = found.executor
    if executor is None:
        return CHANGING, None, None
    if x.dtype is not executor.dtype or on_cpu is not executor.on_cpu or not (on_cpu or x.device == executor.device):
        return FOREIGN, None, None
    route, trial = executor.call_route, executor.trial
    if route.by == "torch":
        return route, None, None
    if trial is None or x is not input:  # never packed sequences: torch steps through unfused cells there
        return route, executor, None
    contest = trial.contest(x, lstm.batch_first, dear=found.fingerprint.dear)
    if contest is None or contest.winner == "native":
        return route, executor, None
    if contest.winner is not None:
        return FASTER, None, None
    return (TIMED, None, contest) if contest.turn == "torch" else (route, executor, contest)


def _plain_states(hx: Any) -> bool:
    """Whether given states may enter; anything but a pair of tensors is refused later, with what was expected."""
    if isinstance(hx, (tuple, list)):  # a union is made anew at every call
        for state in hx:
            if isinstance(state, torch.Tensor) and not is_plain(state):
                return False
    return True


def _autocasts(device: str) -> bool:
    return device in ("cpu", "cuda") and torch.is_autocast_enabled(device)


def needs_gradients(lstm: nn.LSTM, x: torch.Tensor, hx: Any) -> bool:
    """Whether autograd would record a call, if it is on."""
    return (
        x.requires_grad
        or any(p.requires_grad for p in lstm._parameters.values() if p is not None)
        or (isinstance(hx, tuple | list) and any(getattr(s, "requires_grad", False) for s in hx))
    )


def of_stack(dtype: torch.dtype, device: torch.device, shape: StackShape, policy: Policy, *, exact: bool) -> Route:
    """Who runs a compiled stack.

    Args:
        dtype, device: of the LSTM's parameters.
        shape: sizes of the stack.
        policy: what it may leave out.
        exact: whether nothing is skipped, quantized or replaced: float64 is not narrowed then.
    """
    name = str(dtype).removeprefix("torch.")
    if device.type != "cpu":
        return Route("reference", f"device {device.type}")
    through_float32 = dtype in THROUGH_FLOAT32 and not (exact and dtype is torch.float64)
    if dtype is not torch.float32 and not through_float32:
        return Route("reference", f"dtype {name}")
    if not native():
        return Route("reference", "no native extension")
    sorted_by_kind = parts(policy)
    if runs_natively(sorted_by_kind, shape):
        return Route("native", f"{name} through float32") if through_float32 else NATIVE
    return Route("mixed" if runs_natively(between_checks(sorted_by_kind), shape) else "reference", python_part(policy))


def of_exact_call(stack: Route, dtype: torch.dtype) -> Route:
    """Who serves whole batches where nothing is skipped, quantized or replaced.

    torch in place of the reference, and for every dtype but float32: its results are what exact means there.
    """
    if stack.by == "reference":
        return replace(stack, by="torch")
    return stack if dtype is torch.float32 else Route("torch", f"dtype {str(dtype).removeprefix('torch.')}")


def computed_in(stack: Route, dtype: torch.dtype) -> torch.dtype:
    """The dtype in which a stack is computed: float32, or the LSTM's own on the reference if that is no narrower."""
    narrow = dtype in (torch.bfloat16, torch.float16)
    return torch.float32 if narrow or stack.by in ("native", "mixed") else dtype


def between_checks(policy: Parts) -> Parts:
    """What of a policy runs between two checks of an exit in time."""
    return replace(policy, time_exit=None)
