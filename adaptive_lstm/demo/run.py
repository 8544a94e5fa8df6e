"""Run a demo: the original, the drop-in, its int8 form and its int8 form that skips columns, on the same inputs.

Quality and activity are those of all test inputs, times those of a few of them (see `race`), on one thread. The
threshold is the largest one of a small grid that leaves the outputs on the *fit* inputs as they were, within the
tolerance of the task: a reasonable setting, not a certified one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from tqdm import tqdm

import adaptive_lstm as al

from .. import race
from ..bench import machine, pinned_threads, ratio
from ..reference import trace
from .outcome import Outcome, Row, Trial
from .task import SequenceModel, Task

TORCH, EXACT, INT8, DELTA = "torch", "adaptive exact", "adaptive int8", "adaptive int8 + delta"
TAUS = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.045, 0.07, 0.1)  # 0 only skips what did not move at all
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
            rows = _rows(task, {**plain, DELTA: skipping[chosen]}, stage, seconds)
            trials = _trials(task, skipping, agreements, stage, seconds)
            moved = trace(_adaptive(skipping[chosen]), task.shown[None])
    return Outcome(
        title=task.title,
        score_name=task.score_name,
        agreement_name=task.agreement_name,
        min_agreement=task.min_agreement,
        rows=rows,
        trials=trials,
        tau=chosen,
        moved=tuple(moved),
        hidden=task.model.lstm.hidden_size,
        picture=task.picture.numpy(),
        sequences=len(task.test_inputs),
        steps=task.test_inputs.shape[1],
        machine=machine(),
    )


def _plain(model: SequenceModel) -> dict[str, SequenceModel]:
    """The contenders that skip nothing."""
    return {TORCH: model, EXACT: al.adapt(model), INT8: _int8(model)}


def _int8(model: SequenceModel) -> SequenceModel:
    fast = al.adapt(model)
    al.compress(fast, quantize=al.Quantize("int8"))
    return fast


def _skipping(task: Task, taus: tuple[float, ...]) -> dict[float, SequenceModel]:
    """For every threshold an int8 model that skips by it, scaled by the sensitivity of the exact one."""
    sensitivity = al.measure_sensitivity(al.adapt(task.model), task.fit_inputs.split(FIT_BATCH))
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


def _rows(task: Task, models: Mapping[str, SequenceModel], stage: Stage, seconds: float) -> tuple[Row, ...]:
    stage("test inputs")
    answers = {name: _answers(model, task.test_inputs) for name, model in models.items()}
    lstms, replayed = {name: model.lstm for name, model in models.items()}, task.test_inputs[:REPLAYED]
    stage("timing whole sequences")
    sequences = race.whole_sequences(lstms, replayed, seconds=seconds)
    stage("timing streaming steps")
    steps = race.steps(lstms, replayed, seconds=seconds)
    return tuple(
        Row(
            name=name,
            score=task.score(answer.outputs),
            agreement=task.agreement(answer.outputs, answers[TORCH].outputs),
            activity=answer.activity,
            sequence=sequences[name],
            step=steps[name],
            sequence_gain=ratio(sequences[TORCH], sequences[name]),
            step_gain=ratio(steps[TORCH], steps[name]),
        )
        for name, answer in answers.items()
    )


def _trials(
    task: Task, models: Mapping[float, SequenceModel], agreements: Mapping[float, float], stage: Stage, seconds: float
) -> tuple[Trial, ...]:
    answers = {}
    for tau, model in models.items():
        stage(f"test inputs: threshold {tau:g}")
        answers[tau] = _answers(model, task.test_inputs)
    stage("timing all thresholds")
    lstms = {f"{tau:g}": model.lstm for tau, model in models.items()}
    timings = race.whole_sequences(lstms, task.test_inputs[:REPLAYED], seconds=seconds)
    return tuple(
        Trial(tau, agreements[tau], task.score(answer.outputs), answer.activity, timings[f"{tau:g}"])
        for tau, answer in answers.items()
    )


def _answers(model: SequenceModel, inputs: Tensor) -> _Answers:
    """One sequence per call, as it is timed; all at once on the reference backend, where that is much faster."""
    outputs, done, possible = [], 0, 0
    for batch in inputs.split(1 if al.backend_info().backend == "native" else len(inputs)):
        outputs.append(model(batch))
        if isinstance(model.lstm, al.AdaptiveLSTM):
            done += model.lstm.last_run.macs
            possible += model.lstm.last_run.macs_possible
    return _Answers(torch.cat(outputs), done / possible if possible else 1.0)


def _adaptive(model: SequenceModel) -> al.AdaptiveLSTM:
    if not isinstance(model.lstm, al.AdaptiveLSTM):
        raise TypeError(f"expected a model that went through al.adapt(), got one with a {type(model.lstm).__name__}")
    return model.lstm
