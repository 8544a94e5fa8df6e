"""Run a demo: the original, the drop-in, its int8 form, and its int8 form with the policy that `calibrate` certified.

Quality and multiply-accumulates are those of all test inputs, times those of the LSTM alone on a few of them, on one
thread. The policy is fitted and chosen on other inputs; its certificate rests on the test inputs.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import adaptive_lstm as al

from ...bench import Timing, machine, pinned_threads, ratio
from ...execution.backend import backend_info
from ...execution.reference import trace
from ...peers import Adaptive, Contender, build
from ...peers.races import time_sequences, time_steps
from .outcome import Outcome, Row
from .task import SequenceModel, Task

TORCH, EXACT, INT8, CERTIFIED = "torch", "adaptive exact", "adaptive int8", "adaptive certified"
COST = "multiply-accumulates"
REPLAYED = 6  # test inputs in one timed call

Stage = Callable[[str], None]


@dataclass(frozen=True)
class _Answers:
    """outputs: [N, K]; macs: share of the dense multiply-accumulates that were done."""

    outputs: Tensor
    macs: float


def run(task: Task, *, seconds: float = 5.0) -> Outcome:
    """Calibrate and measure all contenders on `task`; on a terminal, progress bars say what is going on.

    seconds: how long each of the two races takes, about.
    """
    with pinned_threads(1):
        certified = int8(task.model)
        calibration = calibrated(task, certified, progress=sys.stderr.isatty())
        lineup = {TORCH: task.model, EXACT: _adapted(task.model), INT8: int8(task.model)}
        if calibration.certified:
            lineup[CERTIFIED] = certified
        with torch.no_grad(), tqdm(total=len(lineup) + 2, disable=None, leave=False) as bar:

            def stage(label: str) -> None:
                bar.set_description_str(label)
                bar.update()

            answers = _answers_of_all(lineup, task.test_inputs, stage)
            contenders = [_contender(name, model) for name, model in lineup.items()]
            replayed = task.test_inputs[torch.linspace(0, len(task.test_inputs) - 1, REPLAYED).long()].split(1)
            stage("timing whole sequences")
            sequences = time_sequences(contenders, replayed, seconds=seconds)
            stage("timing streaming steps")
            steps = time_steps(contenders, replayed, seconds=seconds)
        moved, exited_at = _moved(task, _adaptive(certified))
        on = machine(backend_info())
    return Outcome(
        title=task.title,
        unit=task.unit,
        score_name=task.score_name,
        agreement_name=task.agreement_name,
        caution=task.caution,
        rows=_rows(task, answers, sequences, steps),
        calibration=calibration,
        cost=COST,
        moved=tuple(moved),
        exited_at=exited_at,
        hidden=task.model.lstm.hidden_size,
        picture=task.picture.numpy(),
        sequences=len(task.test_inputs),
        steps=task.test_inputs.shape[1],
        machine=on,
    )


def calibrated(task: Task, model: SequenceModel, *, progress: bool) -> al.Calibration:
    """Calibrate `model` and set the policy that was certified, or none."""
    calibration = al.calibrate(
        model,
        task.splits,
        loss=task.loss,
        max_loss=task.max_loss,
        confidence=task.confidence,
        policies=task.families(model),
        objective="macs",  # counted, not timed: the same policy whatever else this machine does meanwhile
        progress=progress,
    )
    calibration.apply(model)
    lstm = _adaptive(model)
    lstm.plan = replace(lstm.plan, expected_rates=None)  # a few inputs, many times over, look like drift
    return calibration


def _rows(
    task: Task, answers: Mapping[str, _Answers], sequences: Mapping[str, Timing], steps: Mapping[str, Timing]
) -> tuple[Row, ...]:
    return tuple(
        Row(
            name=name,
            score=task.score(answer.outputs),
            agreement=task.agreement(answer.outputs, answers[TORCH].outputs),
            macs=answer.macs,
            sequence=sequences[name],
            step=steps[name],
            sequence_gain=ratio(sequences[TORCH], sequences[name]),
            step_gain=ratio(steps[TORCH], steps[name]),
        )
        for name, answer in answers.items()
    )


def _contender(name: str, model: SequenceModel) -> Contender:
    """The model's LSTM alone, to be timed."""
    if isinstance(model.lstm, al.AdaptiveLSTM):
        return Adaptive(name, model.lstm.quantize.precision, model.lstm)
    (contender,), _ = build(model.lstm, [name], threads=1)
    return contender


def _adapted(model: SequenceModel) -> SequenceModel:
    return al.adapt(model)


def int8(model: SequenceModel) -> SequenceModel:
    """An adapted copy in int8, nothing skipped."""
    fast = _adapted(model)
    al.compress(fast, quantize=al.Quantize("int8"))
    return fast


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


def _moved(task: Task, lstm: al.AdaptiveLSTM) -> tuple[list[NDArray[np.bool_]], int]:
    """Per layer the columns [T, I + H] that the shown input sends, and the step after which it has left."""
    moved = trace(task.model.lstm, lstm.policy, task.shown)
    with torch.no_grad(), al.stream(lstm, batch_size=1) as session:
        exited_at = 0
        while exited_at < len(task.shown) and not bool(session.exited.all()):
            session.step(task.shown[exited_at : exited_at + 1])
            exited_at += 1
    return [np.where(np.arange(len(sent))[:, None] < exited_at, sent, False) for sent in moved], exited_at


def _adaptive(model: SequenceModel) -> al.AdaptiveLSTM:
    if not isinstance(model.lstm, al.AdaptiveLSTM):
        raise TypeError(f"expected a model that went through al.adapt(), got one with a {type(model.lstm).__name__}")
    return model.lstm
