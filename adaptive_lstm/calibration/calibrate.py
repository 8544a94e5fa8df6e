"""``calibrate``: the cheapest policy whose loss is certified, or the answer that none was found.

It prepares, measures, searches, proves, times and records, on three disjoint splits of the sequences: ``fit`` for
sensitivity and translators, ``search`` for which candidates to test and in which order, ``test`` for the proof (Pareto
testing, Laufer-Goldshtein et al., ICLR 2023; see ``risk.py``). The certificate holds for the model as it is deployed:
compressed, skipping, on this backend, compared with the original float32 model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from ..codec import brief, is_one_of
from ..errors import InputError
from ..losses import Loss
from ..model_io import first_tensor, runs_model
from ..policies import Family, Policy
from ..progress import Progress
from ..runtime.adapt import adapted_lstms
from ..runtime.lstm import AdaptiveLSTM
from .evaluation import Evaluator
from .families import check_families, check_splitting, default_families, warn_of_code
from .finalists import check_min_gain, time_finalists
from .guarantee import Guarantee
from .result import Calibration as Calibration
from .result import Point as Point
from .splits import Splits, split_sequences
from .steps import Timed, measure, prepare, prove, record, search, skipping_shapes
from .time_budget import TimeBudget
from .workload import Use, check_use


@runs_model
def calibrate(
    model: nn.Module,
    sequences: Iterable[Any] | Splits[Any],
    *,
    loss: Loss | Callable[[Any, Any, Any], float] | Sequence[Loss | Callable[[Any, Any, Any], float]],
    max_loss: float | Sequence[float],
    confidence: float,
    policies: Sequence[Family | type[Policy]] | None = None,
    objective: Literal["latency", "macs"] = "latency",
    use: Use = "sequence",
    min_gain: float = 0.05,
    seconds: float | None = None,
    conditional: bool = False,
    shares: tuple[float, float, float] = (0.25, 0.25, 0.5),
    output: Callable[[Any], torch.Tensor] = first_tensor,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Choose the cheapest policy whose loss on new sequences can be certified.

    With probability ``confidence`` over the draw of the sequences, the mean loss of the chosen policy on new sequences
    drawn like these is at most ``max_loss``. Nothing is promised about sequences drawn otherwise. The search runs the
    model some thousand times; on a terminal it says how long that takes.

    Args:
        model: an adapted model in eval mode, compressed as it will be deployed. Its policies are replaced only by
            ``Calibration.apply``.
        sequences: inputs of the model, or ``(inputs, target)``; several arguments as ``((x, lengths), target)``,
            arguments by name as a dict. One sequence each: they are the unit that the certificate counts. Or ``Splits``
            of them, where sequences belong together (by speaker, by device); the order within each does not matter.
        loss: from ``adaptive_lstm.losses``, or a function of (output, dense_output, target) to a float in [0, 1];
            several for several guarantees at once.
        max_loss: the largest mean loss that is acceptable, in (0, 1); one for each loss.
        confidence: of the certificate, in (0.5, 1), for example 0.95.
        policies: families to search: ``Family(ExitInTime, head=model.fc)``, or a class of policies (``Delta``) for one
            without fixed settings. Their strengths (thresholds, limits, translators) are searched for. Default: all
            that apply without knowing the head.
        objective: what to make cheap. "latency": seconds, measured on this machine; the search is ordered by predicted
            ones, and its finalists are timed on inputs of the search split, each in turn with the same model skipping
            nothing. "macs": multiply-accumulates.
        use: how the model will be used, which decides what is timed (``time_policy``): policies that pay frame by frame
            may lose in whole sequences, and the other way round.
        min_gain: with "latency", the share of the time that a policy must save, by the upper quartile. If none does,
            nothing is skipped and the certificate says how fast the fastest ran.
        seconds: how long the calibration may take; the search, the timing and the tests end early to keep it.
        conditional: guarantee the limit also for the sequences that exit first, at every time bucket of ``ExitInTime``
            (accumulated gap control, Ringel et al., ICML 2024). Each sequence must then be one batch row.
        shares: of the fit, search and test split.
        output: picks one tensor from what the model returns: the losses of ``adaptive_lstm.losses`` compare it,
            sensitivity is measured for it, and it must be finite. Your own functions are given all that it returns.
        seed: of the split and of the random projections.
        progress: show a bar and an estimate of the time, where stderr is a terminal.

    Raises:
        CalibrationError: too few sequences (the message says how many are needed), equal ones, a loss outside
            [0, 1], or too few ``seconds`` (the message says how many are needed).
        NonFiniteError: the model returns NaN or infinity.
        InputError: the model gives another output for the same sequence each time, its outputs have a shape that the
            loss could read in two ways, or arguments that do not fit.
        PolicyError, UnsupportedError: policies that do not fit. All of this is found before the search.

    Warns:
        UserWarning: a policy with a head in Python, which ``save`` cannot write.
    """
    budget = TimeBudget(seconds)
    lstms = _lstms(model, sequences)
    guarantee = Guarantee.of(loss, max_loss, confidence, conditional, output)
    _check_goal(objective, use, min_gain, lstms)
    families = _families(model, lstms, policies, conditional, split=objective == "latency" and use != "stream")
    check_splitting(families, objective, use)
    warn_of_code(families)
    splits, fingerprints = split_sequences(sequences, shares, seed)
    with Progress("calibrating", "run", show=progress, deadline=budget) as bar:
        evaluator = Evaluator(model, lstms, guarantee.losses, output, bar.advance)
        run = prepare(evaluator, splits, guarantee, objective, bar, budget)
        measured = measure(run, families, seed)
        found = search(run, families, measured, use, budget)
        timed = Timed(found, {}, 0) if run.by_macs else time_finalists(run, found, use, min_gain, budget)
        proof = prove(run, timed.found, budget)
    return record(run, timed, proof, use, fingerprints, budget.spent)


def _check_goal(objective: object, use: object, min_gain: object, lstms: Mapping[str, AdaptiveLSTM]) -> None:
    """Raise ``InputError`` unless these say what to make cheap."""
    if not is_one_of(objective, ("latency", "macs")):
        raise InputError(f"objective: got {brief(objective)}, expected 'latency' or 'macs'")
    check_use(use, lstms)
    check_min_gain(min_gain)


def _lstms(model: nn.Module, sequences: Any) -> dict[str, AdaptiveLSTM]:
    """The LSTMs of a model that can be calibrated.

    Raises:
        InputError: it cannot, or the sequences are one tensor or a text.
    """
    if isinstance(sequences, torch.Tensor | Mapping | str | bytes):
        raise InputError(
            f"sequences: got one {type(sequences).__name__}, expected a list with one input of the model for every "
            "sequence, for example list(x.split(1)) of a batch [N, T, I]"
        )
    lstms = adapted_lstms(model)
    if not skipping_shapes(lstms):
        raise InputError(
            f"got LSTM cells alone ({', '.join(lstms) or 'the model itself'}), expected an LSTM: a cell keeps nothing "
            "between its calls, so no policy can skip anything; adaptive_lstm.compress(model) makes cells faster"
        )
    return lstms


def _families(
    model: nn.Module,
    lstms: Mapping[str, AdaptiveLSTM],
    policies: Sequence[Family | type[Policy]] | None,
    conditional: bool,
    *,
    split: bool,
) -> Sequence[Family]:
    """The families to search: those given, checked, or else the default."""
    shapes = skipping_shapes(lstms)
    given = default_families(shapes, split=split) if policies is None else policies
    families = check_families(given, shapes, next(model.parameters()))
    if conditional and not any(f.kind.decision == "time_exit" for f in families):
        raise InputError("conditional=True controls exits in time, expected an ExitInTime among the policies")
    return families
