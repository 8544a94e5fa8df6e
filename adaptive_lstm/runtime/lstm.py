"""``AdaptiveLSTM``: an ``nn.LSTM`` whose inference runs on the adaptive executor; ``adapt`` puts it into a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.fx import Proxy

from ..errors import InputError, UnsupportedError
from ..execution.accounting import run_stats
from ..execution.batch import Batch, rows_in, timesteps_in
from ..execution.compiled import Compiled, Lent, current
from ..execution.direct_call import Bypassed, DirectCall
from ..execution.executor import Executor
from ..execution.fingerprint import Fingerprint
from ..execution.route import EMPTY, NOT_PLAIN, TRACING, decide
from ..execution.runner import Counted, Runner
from ..execution.torch_choice import Contest, timed
from ..execution.uncompiled import unseen
from ..model_io import copied, deep_copied
from ..policies import Parts, Policy
from ..policies.combined import acts
from ..types import Counts, Route, RunStats, StackShape
from ..weights.layout import CellTensors, named_weights, shape_of, tensors_of
from ..weights.precision import Quantize
from ..weights.replaced import ReplacedWeights
from .by_torch import SCRIPT, by_torch, checked_batch, warn_of_torch
from .call import Call
from .conversion import convert, plain_class
from .exact_by_torch import exact_by_torch
from .in_graph import in_graph
from .monitor import Monitor
from .plan import Plan
from .short_calls import note_length

# Rebuilt on demand, never copied, pickled or saved.
RUNTIME = ("_compiled", "_direct", "_last", "_detour", "_origin", "_warned", "_short_calls", "_handle", "_lent")


class AdaptiveLSTM(nn.LSTM):
    """A drop-in ``nn.LSTM`` for inference: same constructor, parameters, ``state_dict``, call and results.

    Exact float32 until ``policy`` or ``quantize`` says otherwise. In training mode, or where gradients are needed, it
    *is* ``nn.LSTM.forward``. Changed weights are noticed at the next call, also in shared memory, in
    inference mode, after fused optimizers, and where hooks compute them for each call. Writes through ``.data`` or
    numpy in eval mode leave no trace: to a whole tensor they are noticed at the next call, to a few elements within
    4,096 timesteps (batch rows times timesteps). ``replan()`` is certain at once. ``Plan.weights_stay`` promises that
    nothing of the kind happens.

    bfloat16, float16 and float64: exact calls are torch's own. What is quantized, pruned or may skip is computed in
    float32, from the float32 values of the weights, and returned in the module's dtype; of float64 that keeps float32's
    24 bits and its range. Only exact streams and the reference executor (policies in Python) compute it in float64.

    Everything that ``nn.LSTM`` accepts works: ``batch_first``, ``bidirectional``, ``proj_size``, ``bias=False``,
    unbatched input, given ``(h_0, c_0)``, ``PackedSequence``; dropout is ignored in eval mode, as torch does.
    """

    _plan: Plan = Plan()
    _monitor: Monitor | None = None
    _compiled: Compiled | None = None
    _direct: DirectCall | None = None  # of _compiled
    _origin: tuple[str, Fingerprint] | None = None  # weights_digest of the parameters, and when it was taken
    _last: tuple[Route, int, int, Counted | None, Parts | None] | None = None
    _warned: bool = False  # that torch served although something is set
    _short_calls: int = 0  # in a row, with given states; below zero: it has been told
    _detour: Callable[[Any, Any], Any] | None = None  # what serves in place of _serve
    _lent: Lent | None = None  # of the LSTM that this is a copy of
    _handle: str | None = None  # by which graphs find it (in_graph)

    @classmethod
    def from_lstm(cls, lstm: nn.LSTM) -> AdaptiveLSTM:
        """A deep copy of an ``nn.LSTM`` as ``AdaptiveLSTM``.

        Raises:
            InputError: not an ``nn.LSTM``, or a subclass of it.
        """
        if not isinstance(lstm, nn.LSTM):
            raise InputError(f"got {type(lstm).__name__}, expected torch.nn.LSTM")
        if plain_class(lstm) not in (nn.LSTM, AdaptiveLSTM):
            raise InputError(f"{type(lstm).__name__} is a subclass whose own methods an AdaptiveLSTM would not have")
        out = copied(lstm)
        convert(out, cls)
        return cast("AdaptiveLSTM", out)

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
        if not isinstance(plan, Plan):
            raise InputError(f"plan: got {type(plan).__name__}, expected a Plan")
        plan.check(self.stack_shape)
        if plan.replaced is not None and plan.replaced is not old.replaced:
            self._check_origin(plan.replaced)
        if plan.expected_rates is not old.expected_rates:
            monitor = None if plan.expected_rates is None else Monitor(plan.expected_rates)
        self._set(plan, monitor)

    def _set(self, plan: Plan, monitor: Monitor | None) -> None:
        """Take over a plan that fits."""
        changed = plan is not self._plan and not (monitor is self._monitor and plan.compiles_as(self._plan))
        self._plan, self._monitor = plan, monitor
        if changed:
            self._keep(None)  # after the plan: see _compile

    def _keep(self, compiled: Compiled | None) -> None:
        self._compiled, self._direct, self._lent = compiled, None if compiled is None else compiled.direct, None

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
        return self._executed(named_weights(self))

    def _executed(self, weights: Mapping[str, torch.Tensor]) -> tuple[CellTensors, ...]:
        replaced = self._plan.replaced
        if replaced is None:
            return tensors_of(self, weights)
        self._check_origin(replaced)
        return replaced.on(next(self.parameters()).device)

    def _check_origin(self, replaced: ReplacedWeights) -> None:
        """Hash the parameters, unless they have not changed since their hash was found to be ``replaced.origin``."""
        known = self._origin
        if known is None or known[0] != replaced.origin or not known[1].certainly_unchanged(self):
            fingerprint = Fingerprint(self, named_weights(self))
            replaced.check(self)
            self._origin = replaced.origin, fingerprint

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
        self._keep(None)
        self._origin = None

    def executor(self) -> Executor:
        """The compiled stack for the current weights, policy and precision, after everything has been compared."""
        old = self._compiled
        if old is not None and old.executor is not None and old.fingerprint.certainly_unchanged(self):
            return old.executor
        found = self._compile(old, exact=False).executor
        assert found is not None, "only exact calls are left to torch"
        return found

    def _compile(self, old: Compiled | None, *, exact: bool) -> Compiled:
        plan = self._plan
        with torch.no_grad():
            monitor, compare = self._monitor, not plan.weights_stay
            new = current(old, self, self._packed, self._bypassed, monitor, exact=exact, compare=compare)
        self._keep(new)
        if self._plan is not plan:  # set by another thread, which may have cleared what was there before
            self._keep(None)
        return new

    @property
    def _bypassed(self) -> Bypassed | None:
        """What a direct call goes past; None: nothing may be gone past."""
        return BYPASSED if type(self) is AdaptiveLSTM else None

    def _packed(self, weights: Mapping[str, torch.Tensor]) -> Executor:
        plan, dtype = self._plan, next(self.parameters()).dtype
        replaced, executed = plan.replaced is not None, self._executed(weights)
        made = Executor(executed, self.stack_shape, plan.quantize, plan.policy, replaced=replaced, dtype=dtype)
        return made if (lent := self._lent) is None else lent.to(made, weights)

    def _ready(self, x: torch.Tensor) -> Compiled:
        """What serves a call with x, unless torch does; its executor is None where weights change at every call."""
        compiled, last = self._compiled, self._last
        timesteps = 1 if last is None else last[2]
        if compiled is not None and compiled.unchanged(self, timesteps):
            return compiled
        if compiled is not None and compiled.fingerprint.dear:
            if compiled.rests() or compiled.torch_won(x, self.batch_first):
                return compiled
            if compiled.executor is not None and compiled.fingerprint.unchanged(self, timesteps):
                return compiled
        return self._compile(compiled, exact=self._plan.exact)

    def run_on(self, runner: Runner) -> AbstractContextManager[None]:
        """Another runner serves every call inside the block, in training mode and with gradients too.

        The monitor sees nothing of it, and ``last_run`` stays as it is.
        """

        def serve(x: Any, hx: Any) -> Any:
            batch = checked_batch(self, x, hx)
            y, h, c, *_ = runner.run(batch)
            return batch.restore(y, h, c)

        return self._detoured(serve)

    def watched_by(self, observer: Callable[[Call], None]) -> AbstractContextManager[None]:
        """Every call inside the block is timed, and shown to an observer when it has finished."""
        detour = self._detour

        def serve(x: Any, hx: Any) -> Any:
            start = time.perf_counter()
            out = (detour or self._serve)(x, hx)
            seconds = time.perf_counter() - start
            observer(Call(x, hx, rows_in(x, self.batch_first), seconds, self.last_run if detour is None else None))
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

    def train(self, mode: bool = True) -> AdaptiveLSTM:
        """As ``nn.Module.train``. Training may write weights without a trace: the next call compares their contents."""
        if mode is not self.training:
            compiled = self._compiled
            if compiled is None or not compiled.fingerprint.doubt():
                self._keep(None)
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()  # type: ignore[no-untyped-call]
        return {key: value for key, value in state.items() if key not in RUNTIME}

    def __deepcopy__(self, memo: dict[int, Any]) -> AdaptiveLSTM:
        out = memo[id(self)] = type(self).__new__(type(self))
        cls: Any = plain_class(self)  # the other one forbids __getstate__
        out.__setstate__(deep_copied(cls.__getstate__(self), memo))  # type: ignore[no-untyped-call]
        out._lent = self.lent()
        return out

    def lent(self) -> Lent | None:
        """What a copy uses until its weights change."""
        return self._lent if self._compiled is None else self._compiled.lent()

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
    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002 (torch's name)
        """As ``nn.LSTM.forward``.

        Args:
            input: [T, B, I], [B, T, I] if ``batch_first``, [T, I], or a ``PackedSequence``.
            hx: (h_0, c_0), h_0 [L * D, B, P] and c_0 [L * D, B, H], without B beside an unbatched input; None: zeros.

        Returns:
            ``output, (h_n, c_n)``: output in the layout of the input, with D * P features; h_n [L * D, B, P] and c_n
            [L * D, B, H].

        Raises:
            InputError: sizes that do not fit, states of another dtype or device than the input, or weights that were
                edited and no longer fit the module's sizes. An empty input, or one of another dtype or device than the
                weights, raises what ``nn.LSTM`` raises.
            NonFiniteError: the input or a given state holds NaN or infinity, and the policy can skip or weights are
                quantized or replaced; nothing was run.
        """
        if is_dynamo_compiling():  # which looks into every frame
            node = in_graph(self, input, hx)
            return super().forward(input, hx) if node is None else node
        return self._serve(input, hx) if self._detour is None else self._detour(input, hx)

    def plain_forward(self, x: Any, hx: Any) -> Any:
        """``nn.LSTM.forward``, whatever is set."""
        return nn.LSTM.forward(self, x, hx)

    def _serve(self, x: Any, hx: Any) -> Any:
        if (out := exact_by_torch(self, self._compiled, x, hx)) is not None:
            return out
        route, executor, contest = decide(self, self._ready, x, hx)
        if executor is None:
            return self._by_torch(route, contest, x, hx)
        last = self.__dict__  # past nn.Module.__setattr__
        batch = Batch.of(x, hx, executor.shape, self.batch_first)
        if hx is not None and executor.skips_over_time:
            note_length(last, batch)
        if contest is None:
            y, h, c, counts, threads = executor.runner.run(batch)
        else:
            seconds, (y, h, c, counts, threads) = timed(lambda: executor.runner.run(batch))
            compiled = self._compiled
            contest.served("native", seconds + (0.0 if compiled is None else compiled.seconds), batch.timesteps)
        last["_last"] = (route, threads or executor.threads(), batch.timesteps, counts, executor.policy)
        monitor = self._monitor
        if monitor is not None and counts is not None:  # from this call's own counts: threads may share the module
            monitor.see(counts(), batch.timesteps, batch.rows)
        return batch.restore(y, h, c)

    def _by_torch(self, route: Route, contest: Contest | None, x: Any, hx: Any) -> Any:
        if (route is TRACING or route is NOT_PLAIN) and (node := in_graph(self, x, hx)) is not None:
            return node
        if contest is None:
            out = by_torch(self, route, x, hx)
        else:
            seconds, out = timed(lambda: by_torch(self, route, x, hx))
            contest.served("torch", seconds, timesteps_in(x))
            trial = self.executor().trial if contest.wants_corner else None
            if trial is not None:
                trial.corner(contest, x, self.batch_first)
        if isinstance(x, Proxy):
            return out  # nothing has run
        last = self.__dict__
        last["_last"] = (route, torch.get_num_threads(), timesteps_in(x), None, None)
        if route is not EMPTY and not self._warned and not self._plan.exact:
            last["_warned"] = True
            warn_of_torch(route)
        return out


BYPASSED = Bypassed.by(AdaptiveLSTM, "_detour")
