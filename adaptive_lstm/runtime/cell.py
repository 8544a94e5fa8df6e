"""``AdaptiveLSTMCell``: an ``nn.LSTMCell`` whose inference runs on the adaptive executor, for loops of decoders."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch._C import _get_tracing_state
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy

from ..errors import InputError, UnsupportedError
from ..execution.direct_call import Bypassed, DirectCall
from ..execution.plain import is_dense, not_dense
from ..execution.uncompiled import unseen
from ..model_io import copied, deep_copied
from ..policies import Policy
from ..types import RunStats, StackShape
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .by_torch import SCRIPT, node_of
from .cell_as_lstm import CellAsLSTM, as_lstm
from .conversion import convert, plain_class
from .in_graph import in_graph
from .lstm import RUNTIME
from .plan import Plan

States = tuple[torch.Tensor, torch.Tensor]


class AdaptiveLSTMCell(nn.LSTMCell):
    """A drop-in ``nn.LSTMCell`` for inference: same constructor, parameters, ``state_dict``, call and results.

    All that ``AdaptiveLSTM`` says of training, gradients, dtypes, devices and changed weights holds here too: exact
    float32 until ``quantize`` says otherwise, and ``nn.LSTMCell.forward`` wherever that ``AdaptiveLSTM`` is
    ``nn.LSTM.forward``. A cell keeps nothing between its calls, each of which holds one timestep, so no policy can
    leave anything out: one that would is refused.
    """

    bypassed: Bypassed
    _direct: DirectCall | None = None
    _detour: Any = None
    _handle: str | None = None
    _lstm: CellAsLSTM | None = None  # kept for compilers, which cannot make it

    @classmethod
    def from_cell(cls, cell: nn.LSTMCell) -> AdaptiveLSTMCell:
        """A deep copy of an ``nn.LSTMCell`` as ``AdaptiveLSTMCell``.

        Raises:
            InputError: not an ``nn.LSTMCell``, or a subclass of it.
        """
        if not isinstance(cell, nn.LSTMCell):
            raise InputError(f"got {type(cell).__name__}, expected torch.nn.LSTMCell")
        if plain_class(cell) not in (nn.LSTMCell, AdaptiveLSTMCell):
            raise InputError(
                f"{type(cell).__name__} is a subclass whose own methods an AdaptiveLSTMCell would not have"
            )
        out = copied(cell)
        convert(out, cls)
        return cast("AdaptiveLSTMCell", out)

    @property
    def as_lstm(self) -> CellAsLSTM:
        """The cell in the form of an LSTM of one layer; both have the same attributes and weights."""
        found = self._lstm  # which would keep the cell until the garbage collector comes: only compilers need it
        return found if found is not None and found.cell is self else as_lstm(self)

    @property
    def stack_shape(self) -> StackShape:
        """Sizes of the cell, as of an LSTM of one layer."""
        return self.as_lstm.stack_shape

    @property
    def plan(self) -> Plan:
        """Everything that is set, as ``AdaptiveLSTM.plan``; a policy that could skip raises ``PolicyError``."""
        return self.as_lstm.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self.as_lstm.plan = plan

    @property
    def policy(self) -> Policy:
        """What a run may leave out: nothing. Setting a policy that could raises ``PolicyError``."""
        return self.as_lstm.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.as_lstm.policy = policy

    @property
    def quantize(self) -> Quantize:
        """Precision of both weight matrices; float32 by default. The parameters themselves are never changed."""
        return self.as_lstm.quantize

    @quantize.setter
    def quantize(self, quantize: Quantize) -> None:
        self.as_lstm.quantize = quantize

    @property
    def replaced(self) -> ReplacedWeights | None:
        """Weights that are executed instead of the parameters, which stay as they are; None: the parameters."""
        return self.as_lstm.replaced

    @replaced.setter
    def replaced(self, replaced: ReplacedWeights | None) -> None:
        self.as_lstm.replaced = replaced

    @property
    def last_run(self) -> RunStats | None:
        """What the last call did, or None before the first."""
        return self.as_lstm.last_run

    def replan(self) -> None:
        """Forget the packed weights and the parameters' hash; the next call packs them again."""
        self.as_lstm.replan()

    def train(self, mode: bool = True) -> AdaptiveLSTMCell:
        """As ``nn.Module.train``. Training may write weights without a trace: the next call compares their contents."""
        self.as_lstm.train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in (*RUNTIME, "_lstm")}

    def __deepcopy__(self, memo: dict[int, Any]) -> AdaptiveLSTMCell:
        out = memo[id(self)] = type(self).__new__(type(self))
        cls: Any = plain_class(self)  # the other one forbids __getstate__
        out.__setstate__(deep_copied(cls.__getstate__(self), memo))  # type: ignore[no-untyped-call]
        out.__dict__["_lent"] = self.as_lstm.lent()
        return out

    def __prepare_scriptable__(self) -> AdaptiveLSTMCell:
        raise UnsupportedError(SCRIPT)

    def extra_repr(self) -> str:
        """Precision behind the sizes, where it is not the default."""
        plan = self.plan
        text = super().extra_repr() + ("" if plan.replaced is None else ", replaced weights")
        return text + ("" if plan.quantize.exact else f", quantize={plan.quantize.precision}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As ``forward``; hooks and all else that ``nn.Module`` does for a call is gone past where it is nothing."""
        if not is_dynamo_compiling():  # first, so that nothing guards what follows
            direct = self._direct
            if direct is not None and not kwargs and 1 <= len(args) <= 2:
                out = direct(self, *args)
                if out is not None:
                    return out
        return super().__call__(*args, **kwargs)

    @unseen
    def forward(self, input: Any, hx: Any = None) -> States:  # noqa: A002 (torch's name)
        """As ``nn.LSTMCell.forward``.

        Args:
            input: [B, I], or [I].
            hx: (h_0, c_0), both [B, H], or [H] beside an input [I]; None: zeros.

        Returns:
            ``h_1, c_1``, both [B, H] or [H].

        Raises:
            InputError: sizes that do not fit, or states of another dtype or device than the input. An input of another
                dtype or device than the weights raises what ``nn.LSTMCell`` raises.
            NonFiniteError: the input or a given state holds NaN or infinity, and weights are quantized or replaced;
                nothing was run.
        """
        if isinstance(input, Proxy):
            return cast("States", node_of(self, input, hx))
        if is_dynamo_compiling() and self.training:  # torch's own cell can be part of its graphs
            return super().forward(input, hx)
        x, states = _as_sequence(input, hx, self.hidden_size)
        if is_dynamo_compiling():  # which looks into every frame
            node = in_graph(self.as_lstm, x, states)
            if node is None:
                return super().forward(input, hx)
            _, (h, c) = node
        else:
            _, (h, c) = self.as_lstm.forward(x, states)
        return h.squeeze(0), c.squeeze(0)


AdaptiveLSTMCell.bypassed = Bypassed.by(AdaptiveLSTMCell, "_detour")


def _as_sequence(x: Any, hx: Any, hidden: int) -> tuple[torch.Tensor, States | None]:
    """The arguments of a cell as those of an LSTM: sequences of one timestep. Raises ``InputError``."""
    if not isinstance(x, torch.Tensor):
        raise InputError(f"LSTMCell: got {type(x).__name__}, expected a torch.Tensor [B, I] or [I]: one timestep")
    if x.dim() not in (1, 2):
        raise InputError(
            f"LSTMCell: got an input of {x.dim()} dimensions, expected [B, I] or [I]: one timestep; sequences are for "
            "nn.LSTM"
        )
    if hx is None:
        return _dense(x).unsqueeze(0), None
    if not (isinstance(hx, (tuple, list)) and len(hx) == 2):
        raise InputError(f"got hx of type {type(hx).__name__}, expected (h_0, c_0)")
    want = (*x.shape[:-1], hidden)
    for name, state in zip(("h_0", "c_0"), hx, strict=True):
        if not isinstance(state, torch.Tensor):
            raise InputError(f"{name}: got {type(state).__name__}, expected a tensor of shape {want}")
        if not _in_graphs() and state.shape != want:
            raise InputError(f"{name}: got {tuple(state.shape)}, expected a tensor of shape {want}")
    return _dense(x).unsqueeze(0), (_dense(hx[0]).unsqueeze(0), _dense(hx[1]).unsqueeze(0))


def _in_graphs() -> bool:
    """Whether a graph is made of the call, whose operation checks shapes itself."""
    return is_dynamo_compiling() or _get_tracing_state() is not None


def _dense(x: torch.Tensor) -> torch.Tensor:
    if not _in_graphs() and not is_dense(x):
        raise InputError(f"LSTMCell: got {not_dense(x)}")
    return x
