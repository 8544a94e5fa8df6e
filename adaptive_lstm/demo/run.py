"""Run a demo: the original, the drop-in, its int8 form and its int8 form that skips columns, on the same inputs.

Quality and activity are those of all test inputs, times those of a few of them (see `race`), on one thread. The
threshold is the largest one of a small grid that leaves the outputs on the *fit* inputs as they were, within the
tolerance of the task: a reasonable setting, not a certified one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import cast

import torch
from torch import Tensor
from tqdm import tqdm

import adaptive_lstm as al

from .. import race
from ..bench import Timing, machine, pinned_threads, ratio
from ..reference import trace
from .outcome import Outcome, Row, Trial
from .task import SequenceModel, Task

TORCH, EXACT, INT8, DELTA = "torch", "adaptive exact", "adaptive int8", "adaptive int8 + delta"
TAUS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.035, 0.04, 0.05, 0.07, 0.1)  # 0: nothing that moved is skipped
REPLAYED = 3  # test inputs in one timed call
FIT_BATCH = 50

Stage = Callable[[str], None]


@dataclass(frozen=True)
class _Answers:
    """outputs: [N, K]; activity: share of the dense multiply-accumulates that were done."""

    outputs: Tensor
    activity: float


def run(task: Task, *, taus: tuple[float, ...] = TAUS, seconds: float = 8.0) -> Outcome:
    """Measure all contenders on `task`; on a terminal a progress bar says what is going on.

    taus: thresholds to try, rising; the first is used even if it is not good enough.
    seconds: how long each of the two races takes, about.
    """
    with pinned_threads(1), tqdm(total=2 * len(taus) + 7, disable=None, leave=False) as bar:

        def stage(label: str) -> None:
            bar.set_description_str(label)
            bar.update()

        stage("sensitivity")
        plain = _plain(task.model)
        skipping = _skipping(task, taus)
        with torch.no_grad():
            agreements = _fit_agreements(task, skipping, stage)
            good = takewhile(lambda tau: agreements[tau] >= task.min_agreement, taus)
            chosen = max(good, default=taus[0])
            lineup = {**plain, **{_label(tau): model for tau, model in skipping.items()}}
            shown_as = {**{name: name for name in plain}, _label(chosen): DELTA}
            answers = _answers_of_all(lineup, task.test_inputs, stage)
            lstms, replayed = {name: model.lstm for name, model in lineup.items()}, task.test_inputs[:REPLAYED]
            stage("timing whole sequences")
            sequences = race.whole_sequences(lstms, replayed, seconds=seconds)
            stage("timing streaming steps")
            steps = race.steps({name: lstms[name] for name in shown_as}, replayed, seconds=seconds)
            moved = trace(task.model.lstm, _adaptive(skipping[chosen]).policy, task.shown)
            on = machine()
    return Outcome(
        title=task.title,
        score_name=task.score_name,
        agreement_name=task.agreement_name,
        min_agreement=task.min_agreement,
        rows=_rows(task, shown_as, answers, sequences, steps),
        trials=tuple(
            Trial(tau, agreements[tau], task.score(answer.outputs), answer.activity, sequences[_label(tau)])
            for tau, answer in ((tau, answers[_label(tau)]) for tau in taus)
        ),
        tau=chosen,
        moved=tuple(moved),
        hidden=task.model.lstm.hidden_size,
        picture=task.picture.numpy(),
        sequences=len(task.test_inputs),
        steps=task.test_inputs.shape[1],
        machine=on,
    )


def _rows(
    task: Task,
    shown_as: Mapping[str, str],
    answers: Mapping[str, _Answers],
    sequences: Mapping[str, Timing],
    steps: Mapping[str, Timing],
) -> tuple[Row, ...]:
    return tuple(
        Row(
            name=shown,
            score=task.score(answers[name].outputs),
            agreement=task.agreement(answers[name].outputs, answers[TORCH].outputs),
            activity=answers[name].activity,
            sequence=sequences[name],
            step=steps[name],
            sequence_gain=ratio(sequences[TORCH], sequences[name]),
            step_gain=ratio(steps[TORCH], steps[name]),
        )
        for name, shown in shown_as.items()
    )


def _plain(model: SequenceModel) -> dict[str, SequenceModel]:
    """The contenders that skip nothing."""
    return {TORCH: model, EXACT: _adapted(model), INT8: _int8(model)}


def _adapted(model: SequenceModel) -> SequenceModel:
    return cast("SequenceModel", al.adapt(model))


def _int8(model: SequenceModel) -> SequenceModel:
    fast = _adapted(model)
    al.compress(fast, quantize=al.Quantize("int8"))
    return fast


def _skipping(task: Task, taus: tuple[float, ...]) -> dict[float, SequenceModel]:
    """For every threshold an int8 model that skips by it, scaled by the sensitivity of the exact one."""
    sensitivity = al.measure_sensitivity(_adapted(task.model), task.fit_inputs.split(FIT_BATCH))
    models = {tau: _int8(task.model) for tau in taus}
    for tau, model in models.items():
        _adaptive(model).policy = al.Delta.scaled(sensitivity, tau=tau)
    return models


def _fit_agreements(task: Task, models: Mapping[float, SequenceModel], stage: Stage) -> dict[float, float]:
    """Threshold -> agreement with the original on the fit inputs."""
    stage("fit inputs: torch")
    expected = _answers(task.model, task.fit_inputs).outputs
    agreements = {}
    for tau, model in models.items():
        stage(f"fit inputs: threshold {tau:g}")
        agreements[tau] = task.agreement(_answers(model, task.fit_inputs).outputs, expected)
    return agreements


def _label(tau: float) -> str:
    return f"threshold {tau:g}"


def _answers_of_all(models: Mapping[str, SequenceModel], inputs: Tensor, stage: Stage) -> dict[str, _Answers]:
    answers = {}
    for name, model in models.items():
        stage(f"test inputs: {name}")
        answers[name] = _answers(model, inputs)
    return answers


def _answers(model: SequenceModel, inputs: Tensor) -> _Answers:
    """One sequence per call, as it is timed; all at once on the reference backend, where that is much faster."""
    outputs, done, possible = [], 0, 0
    for batch in inputs.split(1 if al.backend_info().backend == "native" else len(inputs)):
        outputs.append(model(batch))
        stats = model.lstm.last_run if isinstance(model.lstm, al.AdaptiveLSTM) else None
        if stats:
            done += stats.macs
            possible += stats.macs_possible
    return _Answers(torch.cat(outputs), done / possible if possible else 1.0)


def _adaptive(model: SequenceModel) -> al.AdaptiveLSTM:
    if not isinstance(model.lstm, al.AdaptiveLSTM):
        raise TypeError(f"expected a model that went through al.adapt(), got one with a {type(model.lstm).__name__}")
    return model.lstm
