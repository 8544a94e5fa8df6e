"""The operations ``adaptive_lstm::lstm`` and ``adaptive_lstm::lstm_here``, as torch's dispatcher knows them.

``lstm`` carries all that it runs in a tensor, so that it can be saved; ``packed`` makes that tensor. ``lstm_here`` runs
a module of this process as a call of it would, by its handle. This file is executed as soon as torch has been imported,
so it imports nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..errors import UnsupportedError
from ..execution.when_imported import when_imported

Result = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_RUN = "(Tensor x, Tensor? h_0, Tensor? c_0, {}, int[] sizes, bool batch_first) -> (Tensor, Tensor, Tensor)"
_LIBRARY = torch.library.Library("adaptive_lstm", "DEF")  # what it defines lives as long as it does


def _stored(
    x: torch.Tensor, h_0: Any, c_0: Any, model: torch.Tensor, digest: str, sizes: Sequence[int], batch_first: bool
) -> Result:
    from .stored_lstm import run

    return run(x, None if h_0 is None else (h_0, c_0), model, digest, batch_first)


def _here(x: torch.Tensor, h_0: Any, c_0: Any, handle: str, sizes: Sequence[int], batch_first: bool) -> Result:
    from ..runtime.in_graph import run

    return run(x, None if h_0 is None else (h_0, c_0), handle)


def _packed(handle: str) -> torch.Tensor:
    from .stored_lstm import packed

    return packed(handle)


def _shapes(x: torch.Tensor, h_0: Any, c_0: Any, *rest: Any) -> Result:
    """Results without values. ``rest`` ends with sizes (L * D, D * P, P, H) and batch_first."""
    (cells, width, output, hidden), batch_first = rest[-2:]
    rows = () if x.dim() == 2 else (x.shape[0 if batch_first else 1],)
    h, c = (cells, *rows, output), (cells, *rows, hidden)
    return x.new_empty((*x.shape[:-1], width)), x.new_empty(h), x.new_empty(c)


def _backward(*grads: Any) -> Any:
    raise UnsupportedError(
        "an adaptive LSTM in a graph has no gradient; for training export the model that was given to adapt()"
    )


def _define(name: str, holds: str, run: Any) -> None:
    qualified = f"adaptive_lstm::{name}"
    _LIBRARY.define(name + _RUN.format(holds), tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, run, "CPU")
    torch.library.register_fake(qualified, _shapes, lib=_LIBRARY)


def _join_compiler() -> None:
    from .torch_compiler import join

    join()


_define("lstm", "Tensor model, str digest", _stored)
_define("lstm_here", "str handle", _here)
torch.library.register_autograd("adaptive_lstm::lstm", _backward, lib=_LIBRARY)  # lstm_here never needs one
_LIBRARY.define("packed(str handle) -> Tensor")
_LIBRARY.impl("packed", _packed, "CompositeExplicitAutograd")
when_imported("torch._dynamo.variables.builder", _join_compiler)
