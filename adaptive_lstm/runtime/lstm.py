"""``AdaptiveLSTM``: an ``nn.LSTM`` whose inference runs on the adaptive executor; ``adapt`` puts it into a model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError
from ..execution.accounting import run_stats
from ..execution.backend import refuse_non_finite
from ..execution.executor import Counted, Executor
from ..execution.torch_choice import TorchOrNative
from ..model_io import copied
from ..policies import Combined, Dense, Parts, Policy
from ..types import Counts, RunStats, StackShape
from ..weights.fingerprint import Fingerprint
from ..weights.layout import CellTensors, shape_of, tensors_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .monitor import Monitor

_RUNTIME = ("_compiled", "_last", "_origin")  # rebuilt on demand, never copied, pickled or saved


class AdaptiveLSTM(nn.LSTM):
    """A drop-in ``nn.LSTM`` for inference: same constructor, parameters, ``state_dict``, call and results.

    Exact float32 until ``policy`` or ``quantize`` says otherwise. In training mode, or where gradients are needed, it
    *is* ``nn.LSTM.forward``. Changed weights are noticed at the next call, except writes through ``.data`` or numpy in
    eval mode, which torch does not count: call ``replan()`` after those.

    Everything that ``nn.LSTM`` accepts works: ``batch_first``, ``bidirectional``, ``proj_size``, ``bias=False``,
    unbatched input, given ``(h_0, c_0)``, ``PackedSequence``; dropout is ignored in eval mode, as torch does.
    """

    _policy: Policy = Dense()
    _quantize: Quantize = Quantize()
    _replaced: ReplacedWeights | None = None
    _compiled: tuple[Fingerprint, Executor, TorchOrNative] | None = None
    _origin: tuple[str, Fingerprint] | None = None  # weights_digest of the parameters, and when it was taken
    monitor: Monitor | None = None
    """Compares every run with the calibrated ranges; set by ``Calibration.apply``, gone with the next policy."""
    _last: tuple[Counted | None, int, str | None, Parts | None] | None = None

    @classmethod
    def from_lstm(cls, lstm: nn.LSTM) -> AdaptiveLSTM:
        """A deep copy of an ``nn.LSTM`` as ``AdaptiveLSTM``.

        Raises:
            InputError: not an ``nn.LSTM``, or a subclass of it.
        """
        if not isinstance(lstm, nn.LSTM):
            raise InputError(f"got {type(lstm).__name__}, expected torch.nn.LSTM")
        if type(lstm) not in (nn.LSTM, AdaptiveLSTM):
            raise InputError(f"{type(lstm).__name__} is a subclass whose own methods an AdaptiveLSTM would not have")
        out = copied(lstm)
        out.__class__ = cls
        return cast("AdaptiveLSTM", out)

    # ------------------------------------------------------------------------------------------------- settings

    @property
    def stack_shape(self) -> StackShape:
        """Sizes of the stack."""
        return shape_of(self)

    @property
    def policy(self) -> Policy:
        """What a run may leave out; ``Dense()`` (nothing) by default.

        Setting one that does not fit raises ``PolicyError`` and changes nothing.
        """
        return self._policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        Combined(policy).check(self.stack_shape)
        self._policy = policy
        self.monitor = None
        self._compiled = None

    @property
    def quantize(self) -> Quantize:
        """Precision of every weight matrix; float32 by default. The parameters themselves are never changed."""
        return self._quantize

    @quantize.setter
    def quantize(self, quantize: Quantize) -> None:
        if not isinstance(quantize, Quantize):
            raise InputError(
                f"got {type(quantize).__name__}, expected adaptive_lstm.Quantize, for example Quantize('int8')"
            )
        quantize.check(self.stack_shape)
        self._quantize = quantize
        self._compiled = None

    @property
    def replaced(self) -> ReplacedWeights | None:
        """Pruned or rounded weights that are executed instead of the parameters; None: the parameters are executed."""
        return self._replaced

    @replaced.setter
    def replaced(self, replaced: ReplacedWeights | None) -> None:
        if replaced is not None:
            self._check_origin(replaced)
        self._replaced = replaced
        self._compiled = None

    def executed(self) -> tuple[CellTensors, ...]:
        """The weights that are executed, ahead of quantization: ``replaced``, or the parameters.

        Raises:
            InputError: the parameters have changed since they were replaced.
        """
        if self._replaced is None:
            return tensors_of(self)
        self._check_origin(self._replaced)
        return self._replaced.tensors(self)

    def _check_origin(self, replaced: ReplacedWeights) -> None:
        """Hash the parameters, unless they have not changed since their hash was found to be ``replaced.origin``."""
        known = self._origin
        if known is None or known[0] != replaced.origin or not known[1].unchanged(self):
            replaced.check(self)
            self._origin = replaced.origin, Fingerprint(self)

    @property
    def last_run(self) -> RunStats | None:
        """What the last call did, or None before the first. Each thread that shares the module overwrites it."""
        if self._last is None:
            return None
        counts, timesteps, fallback, policy = self._last
        shape = self.stack_shape
        if counts is None or policy is None:
            return RunStats.of(shape, Counts.dense(shape, timesteps), timesteps, fallback, 0)
        return run_stats(policy, shape, counts(), timesteps, fallback)

    def replan(self) -> None:
        """Forget the packed weights and the parameters' hash; the next call packs them again."""
        self._compiled = self._origin = None

    def executor(self) -> Executor:
        """The compiled stack for the current weights, policy and precision."""
        return self._compile()[1]

    def _compile(self) -> tuple[Fingerprint, Executor, TorchOrNative]:
        compiled = self._compiled
        if compiled is None or not compiled[0].unchanged(self):
            # As nn.LSTM.forward does: torch.func.functional_call swaps parameters behind the module's back.
            self._update_flat_weights()
            with torch.no_grad():
                executor = Executor(
                    self.executed(),
                    self.stack_shape,
                    self._quantize,
                    self._policy,
                    replaced=self._replaced is not None,
                )
            compiled = self._compiled = (Fingerprint(self), executor, TorchOrNative(executor))
        return compiled

    # ------------------------------------------------------------------------------------------------- nn.Module

    def train(self, mode: bool = True) -> AdaptiveLSTM:
        """As ``nn.Module.train``. Training may write weights in ways that leave no trace, so leaving it replans."""
        self.replan()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in _RUNTIME}

    def extra_repr(self) -> str:
        """Policy and precision behind the sizes, where they are not the default."""
        text = super().extra_repr()
        if not isinstance(self._policy, Dense):
            text += f", policy={type(self._policy).__name__}"
        text += "" if self._replaced is None else ", replaced weights"
        return text + ("" if self._quantize.exact else f", quantize={self._quantize.precision}")

    # --------------------------------------------------------------------------------------------------- forward

    def forward(self, input, hx=None):  # type: ignore[no-untyped-def]  # noqa: A002 (torch's signature)
        """As ``nn.LSTM.forward``: ``output, (h_n, c_n)``."""
        why = self._why_torch(input, hx)
        if why is None:
            _, executor, choice = self._compile()
            packed = isinstance(input, PackedSequence)
            x = input.data if packed else input
            if x.dtype != executor.dtype or x.device != executor.device:
                why = "torch: input of another dtype or device"  # raises torch's own error
            elif executor.native is None and executor.exact and not executor.skips:
                why = "torch: " + str(executor.why_not_native()).removeprefix("reference: ")
            elif executor.native is not None and choice.torch_is_faster(self, x, packed):
                why = "torch: measured faster for this batch"
            else:
                return self._forward_adaptive(executor, input, hx)
        out = super().forward(input, hx)
        self.__dict__["_last"] = (None, _timesteps(input, self.batch_first), why, None)  # past nn.Module.__setattr__
        return out

    def _why_torch(self, x: Any, hx: Any) -> str | None:
        """Why ``nn.LSTM.forward`` must serve, or None."""
        if self.training:
            return "torch: training mode"
        if torch._C._get_tracing_state() is not None or torch.compiler.is_compiling():
            return "torch: tracing"
        data = x.data if isinstance(x, PackedSequence) else x
        if not isinstance(data, torch.Tensor) or data.numel() == 0:
            return "torch: empty input"
        device = "cpu" if data.is_cpu else data.device.type
        if device in ("cpu", "cuda") and torch.is_autocast_enabled(device):
            return "torch: autocast"
        if torch.is_grad_enabled() and (
            data.requires_grad
            or any(p.requires_grad for p in self._parameters.values() if p is not None)
            or (hx is not None and any(s.requires_grad for s in hx))
        ):
            return "torch: gradients needed (wrap inference in torch.no_grad() or torch.inference_mode())"
        return None

    def _forward_adaptive(self, executor: Any, x: Any, hx: Any) -> Any:
        shape = executor.shape
        sizes = sorted_indices = unsorted_indices = None
        unbatched = False
        if isinstance(x, PackedSequence):
            data, sizes, sorted_indices, unsorted_indices = x
            _check_packed(data, sizes)
            batch = int(sizes[0])
        else:
            dims = x.dim()
            if dims not in (2, 3):
                raise InputError(f"LSTM: got an input of {dims} dimensions, expected 2 (unbatched) or 3")
            unbatched = dims == 2
            data = x.unsqueeze(0 if self.batch_first else 1) if unbatched else x
            batch = data.shape[0 if self.batch_first else 1]
        features = data.shape[-1]
        if features != shape.input_size:
            raise InputError(f"got inputs with {features} features, expected input_size = {shape.input_size}")
        initial = None
        if hx is not None:
            h, c = self._initial(executor, hx, batch, unbatched)
            initial = (
                (h, c)
                if sorted_indices is None
                else (h.index_select(1, sorted_indices), c.index_select(1, sorted_indices))
            )
        y, h, c, counts = executor.run(data, sizes, self.batch_first and sizes is None, initial)
        timesteps = data.numel() // features
        self.__dict__["_last"] = (counts, timesteps, executor.why_not_native(), executor.policy)
        monitor = self.monitor
        if monitor is not None and counts is not None:  # from this call's own counts: threads may share the module
            monitor.see(counts(), timesteps, batch)
        if sizes is not None:
            if unsorted_indices is not None:
                h, c = h.index_select(1, unsorted_indices), c.index_select(1, unsorted_indices)
            return PackedSequence(y, sizes, sorted_indices, unsorted_indices), (h, c)
        if unbatched:
            return y.squeeze(0 if self.batch_first else 1), (h.squeeze(1), c.squeeze(1))
        return y, (h, c)

    def _initial(self, executor: Any, hx: Any, batch: int, unbatched: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Given ``(h_0, c_0)``, checked, as [L * D, B, ...]."""
        shape = executor.shape
        if not (isinstance(hx, tuple | list) and len(hx) == 2):
            raise InputError(f"got hx of type {type(hx).__name__}, expected a pair (h_0, c_0)")
        out = []
        for name, state, width in (("h_0", hx[0], shape.output_size), ("c_0", hx[1], shape.hidden_size)):
            want = (shape.num_cells, width) if unbatched else (shape.num_cells, batch, width)
            if not isinstance(state, torch.Tensor):
                raise InputError(f"{name}: got {type(state).__name__}, expected a tensor of shape {want}")
            if tuple(state.shape) != want:
                raise InputError(f"{name}: got shape {tuple(state.shape)}, expected {want}")
            weight = self.weight_ih_l0
            if state.dtype != weight.dtype or state.device != weight.device:
                raise InputError(
                    f"{name}: got {state.dtype} on {state.device}, expected {weight.dtype} on {weight.device}"
                )
            if executor.finite_only and not bool(torch.isfinite(state).all()):
                raise refuse_non_finite()
            out.append(state.detach().unsqueeze(1) if unbatched else state.detach())
        return out[0], out[1]


def _check_packed(data: torch.Tensor, sizes: torch.Tensor) -> None:
    """Refuse a PackedSequence put together by hand whose sizes would lead beyond its data."""
    falls = sizes.dim() == 1 and len(sizes) > 0 and bool((sizes[1:] <= sizes[:-1]).all()) and int(sizes[-1]) > 0
    if data.dim() != 2 or sizes.dtype != torch.int64 or not falls or int(sizes.sum()) != len(data):
        raise InputError(
            f"got a PackedSequence with data of shape {tuple(data.shape)}, {sizes.dtype} batch sizes {sizes.tolist()}, "
            "expected data [sum(sizes), I] and int64 sizes that are positive and never grow; "
            "torch.nn.utils.rnn.pack_padded_sequence makes one"
        )


def _timesteps(x: Any, batch_first: bool) -> int:
    if isinstance(x, PackedSequence):
        return len(x.data)
    return int(x.shape[0] * x.shape[1] if x.dim() == 3 else x.shape[0])
