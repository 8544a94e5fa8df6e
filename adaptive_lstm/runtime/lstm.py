"""``AdaptiveLSTM``: an ``nn.LSTM`` whose inference runs on the adaptive executor; ``adapt`` puts it into a model."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn
from torch.fx import Proxy
from torch.nn.utils.rnn import PackedSequence

from ..errors import InputError, UnsupportedError
from ..execution.accounting import run_stats
from ..execution.batch import Batch
from ..execution.executor import Executor
from ..execution.route import EMPTY, decide
from ..execution.runner import Counted, Runner
from ..execution.uncompiled import unseen
from ..model_io import copied
from ..policies import Parts, Policy
from ..policies.combined import acts
from ..types import Counts, Route, RunStats, StackShape
from ..weights.fingerprint import Fingerprint
from ..weights.layout import CellTensors, shape_of, tensors_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .by_torch import SCRIPT, by_torch
from .monitor import Monitor
from .plan import Plan

_RUNTIME = (
    "_compiled",
    "_last",
    "_detour",
    "_origin",
    "_warned",
    "_short_calls",
)  # rebuilt on demand, never copied, pickled or saved

FEW_TIMESTEPS, MANY_SHORT_CALLS = 2, 32  # a user who steps by calls makes many short ones in a row


@dataclass(frozen=True)
class Call:
    """A finished call of an ``AdaptiveLSTM``, as an observer sees it (``AdaptiveLSTM.watched_by``).

    ``input``, ``hx``: its arguments.
    ``rows``: B, the batch rows of the input.
    ``seconds``: how long it took.
    ``stats``: what it did; None if a runner stood in for the LSTM's own (``AdaptiveLSTM.run_on``).
    """

    input: Any
    hx: Any
    rows: int
    seconds: float
    stats: RunStats | None


class AdaptiveLSTM(nn.LSTM):
    """A drop-in ``nn.LSTM`` for inference: same constructor, parameters, ``state_dict``, call and results.

    Exact float32 until ``policy`` or ``quantize`` says otherwise. In training mode, or where gradients are needed, it
    *is* ``nn.LSTM.forward``. Changed weights are noticed at the next call, except writes through ``.data`` or numpy in
    eval mode, which torch does not count: call ``replan()`` after those.

    bfloat16, float16 and float64: exact calls are torch's own. What is quantized, pruned or may skip is computed in
    float32, from the float32 values of the weights, and returned in the module's dtype; of float64 that keeps float32's
    24 bits and its range. Only exact streams and the reference executor (policies in Python) compute it in float64.

    Everything that ``nn.LSTM`` accepts works: ``batch_first``, ``bidirectional``, ``proj_size``, ``bias=False``,
    unbatched input, given ``(h_0, c_0)``, ``PackedSequence``; dropout is ignored in eval mode, as torch does.
    """

    _plan: Plan = Plan()
    _monitor: Monitor | None = None
    _compiled: tuple[Fingerprint, Executor] | None = None
    _origin: tuple[str, Fingerprint] | None = None  # weights_digest of the parameters, and when it was taken
    _last: tuple[Route, int, int, Counted | None, Parts | None] | None = None
    _warned: bool = False  # that torch served although something is set
    _short_calls: int = 0  # in a row, with given states; below zero: it has been told
    _detour: Callable[[Any, Any], Any] | None = None  # what serves in place of _serve

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
    def plan(self) -> Plan:
        """Everything that is set; assign another to change all of it at once.

        Setting one that does not fit raises ``PolicyError`` or ``InputError`` and changes nothing. Monitoring starts
        anew with other expected rates.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        old, monitor = self._plan, self._monitor
        plan.check(self.stack_shape)
        if plan.replaced is not None and plan.replaced is not old.replaced:
            self._check_origin(plan.replaced)
        if plan.expected_rates is not old.expected_rates:
            monitor = None if plan.expected_rates is None else Monitor(plan.expected_rates)
        self._set(plan, monitor)

    def _set(self, plan: Plan, monitor: Monitor | None) -> None:
        """Take over a plan that fits."""
        if plan is not self._plan:
            self._compiled = None
        self._plan, self._monitor = plan, monitor

    @property
    def policy(self) -> Policy:
        """What a run may leave out; ``Dense()`` (nothing) by default.

        Setting one that does not fit raises ``PolicyError`` and changes nothing. A new policy ends monitoring.
        """
        return self._plan.policy

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self.plan = replace(self._plan, policy=policy, expected_rates=None)

    @property
    def quantize(self) -> Quantize:
        """Precision of every weight matrix; float32 by default. The parameters themselves are never changed."""
        return self._plan.quantize

    @quantize.setter
    def quantize(self, quantize: Quantize) -> None:
        self.plan = replace(self._plan, quantize=quantize)

    @property
    def replaced(self) -> ReplacedWeights | None:
        """Weights that are executed instead of the parameters, which stay as they are; None: the parameters."""
        return self._plan.replaced

    @replaced.setter
    def replaced(self, replaced: ReplacedWeights | None) -> None:
        self.plan = replace(self._plan, replaced=replaced)

    @property
    def monitor(self) -> Monitor | None:
        """Compares every run with the rates that the plan expects; None if it expects none."""
        return self._monitor

    def executed(self) -> tuple[CellTensors, ...]:
        """The weights that are executed, ahead of quantization: the replaced ones, or the parameters.

        In float32; parameters of float64 as they are.

        Raises:
            InputError: the parameters have changed since they were replaced.
        """
        replaced = self._plan.replaced
        if replaced is None:
            return tensors_of(self)
        self._check_origin(replaced)
        return replaced.on(next(self.parameters()).device)

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
        route, threads, timesteps, counts, policy = self._last
        shape = self.stack_shape
        if counts is None or policy is None:
            return RunStats.of(shape, Counts.dense(shape, timesteps), timesteps, route=route, threads=threads)
        return run_stats(policy, shape, counts(), timesteps, route=route, threads=threads)

    def replan(self) -> None:
        """Forget the packed weights and the parameters' hash; the next call packs them again."""
        self._compiled = self._origin = None

    def executor(self) -> Executor:
        """The compiled stack for the current weights, policy and precision."""
        compiled = self._compiled
        if compiled is None or not compiled[0].unchanged(self):
            # As nn.LSTM.forward does: torch.func.functional_call swaps parameters behind the module's back.
            self._update_flat_weights()
            plan = self._plan
            with torch.no_grad():
                executor = Executor(
                    self.executed(),
                    self.stack_shape,
                    plan.quantize,
                    plan.policy,
                    replaced=plan.replaced is not None,
                    dtype=next(self.parameters()).dtype,
                )
            compiled = self._compiled = (Fingerprint(self), executor)
        return compiled[1]

    def run_on(self, runner: Runner) -> AbstractContextManager[None]:
        """Another runner serves every call inside the block, in training mode and with gradients too.

        The monitor sees nothing of it, and ``last_run`` stays as it is.
        """

        def serve(x: Any, hx: Any) -> Any:
            batch = Batch.of(x, hx, self.stack_shape, self.batch_first)
            y, h, c, _ = runner.run(batch)
            return batch.restore(y, h, c)

        return self._detoured(serve)

    def watched_by(self, observer: Callable[[Call], None]) -> AbstractContextManager[None]:
        """Every call inside the block is timed, and shown to an observer when it has finished."""
        detour = self._detour

        def serve(x: Any, hx: Any) -> Any:
            start = time.perf_counter()
            out = (detour or self._serve)(x, hx)
            seconds = time.perf_counter() - start
            observer(Call(x, hx, _rows(x, self.batch_first), seconds, self.last_run if detour is None else None))
            return out

        return self._detoured(serve)

    @contextmanager
    def _detoured(self, detour: Callable[[Any, Any], Any]) -> Iterator[None]:
        before = self._detour
        self._detour = detour
        try:
            yield
        finally:
            self._detour = before

    # ------------------------------------------------------------------------------------------------- nn.Module

    def train(self, mode: bool = True) -> AdaptiveLSTM:
        """As ``nn.Module.train``. Training may write weights without a trace, so a change of mode replans."""
        if mode is not self.training:
            self.replan()
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in _RUNTIME}

    def __prepare_scriptable__(self) -> AdaptiveLSTM:
        raise UnsupportedError(SCRIPT)

    def extra_repr(self) -> str:
        """Policy and precision behind the sizes, where they are not the default."""
        text = super().extra_repr()
        plan = self._plan
        if acts(plan.policy):
            text += f", policy={type(plan.policy).__name__}"
        text += "" if plan.replaced is None else ", replaced weights"
        return text + ("" if plan.quantize.exact else f", quantize={plan.quantize.precision}")

    # --------------------------------------------------------------------------------------------------- forward

    @unseen
    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 (torch's name)
        """As ``nn.LSTM.forward``.

        Args:
            input: [T, B, I], [B, T, I] if ``batch_first``, [T, I], or a ``PackedSequence``.
            hx: (h_0, c_0), h_0 [L * D, B, P] and c_0 [L * D, B, H], without B beside an unbatched input; None: zeros.

        Returns:
            ``output, (h_n, c_n)``: output in the layout of the input, with D * P features; h_n [L * D, B, P] and c_n
            [L * D, B, H].

        Raises:
            InputError: sizes that do not fit, or states of another dtype or device than the input. An input of another
                dtype or device than the weights raises what ``nn.LSTM`` raises.
            NonFiniteError: the input or a given state holds NaN or infinity, and the policy can skip or weights are
                quantized or replaced; nothing was run.
        """
        return self._serve(input, hx) if self._detour is None else self._detour(input, hx)

    def _warn_of_torch(self, route: Route) -> None:
        warnings.warn(
            f"adaptive_lstm: plain float32 nn.LSTM served this call ({route.reason}), although a precision, replaced "
            "weights or a policy is set: its outputs are not those of the compressed model. Shown once per LSTM.",
            UserWarning,
            stacklevel=4,
        )

    def _note_length(self, batch: Batch) -> None:
        """Tell, once, who steps by calls with given states that every call forgets what skipping depends on."""
        short = batch.timesteps <= FEW_TIMESTEPS * batch.rows
        last = self.__dict__
        count = self._short_calls + 1 if short else min(self._short_calls, 0)
        last["_short_calls"] = count
        if count == MANY_SHORT_CALLS:
            warnings.warn(
                f"adaptive_lstm: {count} calls in a row were given (h_0, c_0) and at most {FEW_TIMESTEPS} timesteps. "
                "Every call starts with nothing sent or held, so the policy can hardly skip anything. A stream "
                "remembers: stream = adaptive_lstm.stream(lstm, batch_size); y = stream.step(x). Shown once per LSTM.",
                UserWarning,
                stacklevel=4,
            )
            last["_short_calls"] = -sys.maxsize

    def _serve(self, x: Any, hx: Any) -> Any:
        route, executor = decide(self, self.executor, x, hx)
        last = self.__dict__  # past nn.Module.__setattr__
        if executor is None:
            out = by_torch(self, route, x, hx)
            if isinstance(x, Proxy) or torch.compiler.is_dynamo_compiling():
                return out  # nothing has run
            last["_last"] = (route, torch.get_num_threads(), _timesteps(x, self.batch_first), None, None)
            if route is not EMPTY and not self._warned and not self._plan.exact:
                last["_warned"] = True
                self._warn_of_torch(route)
            return out
        batch = Batch.of(x, hx, executor.shape, self.batch_first)
        if hx is not None and executor.skips_over_time:
            self._note_length(batch)
        y, h, c, counts = executor.runner.run(batch)
        last["_last"] = (route, executor.threads(), batch.timesteps, counts, executor.policy)
        monitor = self._monitor
        if monitor is not None and counts is not None:  # from this call's own counts: threads may share the module
            monitor.see(counts(), batch.timesteps, batch.rows)
        return batch.restore(y, h, c)


def _rows(x: Any, batch_first: bool) -> int:
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    return 1 if x.dim() == 2 else int(x.shape[0 if batch_first else 1])


def _timesteps(x: Any, batch_first: bool) -> int:
    if isinstance(x, PackedSequence):
        return len(x.data)
    return int(x.shape[0] * x.shape[1] if x.dim() == 3 else x.shape[0])
