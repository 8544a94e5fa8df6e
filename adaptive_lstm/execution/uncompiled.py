"""What ``torch.compile`` leaves alone: it cannot look into the native core, and must not trace what surrounds it."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_WHY = "it runs in native code and changes its own state; leave out fullgraph=True, or compile what surrounds it"


def unseen(function: Function) -> Function:
    """Mark a function whose frames are not compiled, nor those of what it calls; one that is traced is still traced.

    Unlike ``torch.compiler.disable`` this wraps nothing, so it costs nothing, and it does not import the compiler.
    """
    try:
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)
        eval_frame.set_code_exec_strategy(cast("FunctionType", function).__code__, skip)
    except (ImportError, AttributeError):  # before torch 2.7, whose graphs break further inside
        pass
    return function


def uncompiled(function: Function) -> Function:
    """Mark a function that graphs break at, to call it as it is."""
    marked = cast("Any", unseen(function))
    marked._torchdynamo_disable, marked._torchdynamo_disable_msg = True, _WHY
    return function
