"""Run a demo: the original, the drop-in, its int8 form, and its int8 form with the policy that `calibrate` certified.

Quality and multiply-accumulates are measured on all test inputs, times on a few of them and for the LSTM alone, on one
thread. The policy is fitted, chosen and timed on other inputs; its certificate rests on the test inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import adaptive_lstm as al

from ...bench import Timing, machine, pinned_threads, ratio
from ...execution.backend import backend_info
from ...execution.reference import trace
from ...peers import Adaptive, Contender, build
from ...peers.races import time_sequences, time_steps
from ...policies.combined import acts
from ...progress import Progress
from .outcome import DemoOutcome, Row
from .task import DemoTask, SequenceModel

TORCH, EXACT, INT8, CERTIFIED = "torch", "adaptive exact", "adaptive int8", "adaptive certified"
TIMED = 6  # test inputs in one sample

M = TypeVar("M", bound=nn.Module)


def run(task: DemoTask, *, seconds: float = 5.0) -> DemoOutcome:
    """Calibrate, and measure all contenders; progress bars are shown on a terminal only.

    Args:
        task: the model and its data.
        seconds: to time whole sequences, about, and as long for streaming steps.
    """
    with pinned_threads(1):
        certified = int8(task.model)
        calibration = calibrated(task, certified)
        models = {TORCH: task.model, EXACT: al.adapt(task.model), INT8: int8(task.model)}
        skips = acts(calibration.policy)
        if skips:
            models[CERTIFIED] = certified
        answers, sequences, steps = _measured(task, models, seconds)
        sent, exited_at = _sent(task, _adaptive(certified))
        on = machine(backend_info())
    return DemoOutcome(
        title=task.title,
        unit=task.unit,
        score_name=task.score_name,
        agreement_name=task.agreement_name,
        caution=task.caution,
        rows=_rows(task, answers, sequences, steps),
        calibration=calibration,
        sequence_gain=ratio(sequences[INT8], sequences[CERTIFIED]) if skips else None,
        stream_gain=ratio(steps[INT8], steps[CERTIFIED]) if skips else None,
        sent=tuple(sent),
        exited_at=exited_at,
        hidden=task.model.lstm.hidden_size,
        picture=task.picture.numpy(),
        sequences=len(task.test_inputs),
        steps=task.test_inputs.shape[1],
        machine=on,
    )


def calibrated(task: DemoTask, model: SequenceModel) -> al.Calibration:
    """Calibrate `model` and set the certified policy, or none."""
    calibration = al.calibrate(
        model,
        task.splits,
        loss=task.loss,
        max_loss=task.max_loss,
        confidence=task.confidence,
        policies=task.families(model),
    )
    calibration.apply(model)
    lstm = _adaptive(model)
    lstm.plan = replace(lstm.plan, expected_rates=None)  # a monitor would report the repeated inputs as drift
    return calibration


def int8(model: M) -> M:
    """An adapted copy in int8, nothing skipped."""
    fast = al.adapt(model)
    al.compress(fast, quantize=al.Quantize("int8"))
    return fast


@dataclass(frozen=True)
class _Answers:
    """Outputs [N, K] of a model for the test inputs, and the share of the dense multiply-accumulates it did."""

    outputs: Tensor
    macs: float


@torch.no_grad()
def _measured(
    task: DemoTask, models: Mapping[str, SequenceModel], seconds: float
) -> tuple[dict[str, _Answers], dict[str, Timing], dict[str, Timing]]:
    """Answers, time per sequence and time per step, by contender."""
    answers: dict[str, _Answers] = {}
    with Progress("measuring", "part", show=True, total=len(models) + 2) as bar:
        for name, model in models.items():
            bar.note(f"test inputs: {name}")
            answers[name] = _answers(model, task.test_inputs)
            bar.advance()
        contenders = [_contender(name, model) for name, model in models.items()]
        some = task.test_inputs[torch.linspace(0, len(task.test_inputs) - 1, TIMED).long()].split(1)
        bar.note("timing whole sequences")
        sequences = time_sequences(contenders, some, seconds=seconds)
        bar.advance()
        bar.note("timing streaming steps")
        steps = time_steps(contenders, some, seconds=seconds)
    return answers, sequences, steps


def _answers(model: SequenceModel, inputs: Tensor) -> _Answers:
    """One sequence per call, as it is timed; all in one call on the reference backend, where that is much faster."""
    outputs, done, possible = [], 0, 0
    for batch in inputs.split(1 if al.backend_info().backend == "native" else len(inputs)):
        outputs.append(model(batch))
        stats = model.lstm.last_run if isinstance(model.lstm, al.AdaptiveLSTM) else None
        if stats:
            done += stats.macs
            possible += stats.macs_possible
    return _Answers(torch.cat(outputs), done / possible if possible else 1.0)


def _contender(name: str, model: SequenceModel) -> Contender:
    """The model's LSTM alone, to be timed."""
    if isinstance(model.lstm, al.AdaptiveLSTM):
        return Adaptive(name, model.lstm.quantize.precision, model.lstm)
    (contender,), _ = build(model.lstm, [name], threads=1)
    return contender


def _rows(
    task: DemoTask, answers: Mapping[str, _Answers], sequences: Mapping[str, Timing], steps: Mapping[str, Timing]
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


def _sent(task: DemoTask, lstm: al.AdaptiveLSTM) -> tuple[list[NDArray[np.bool_]], int]:
    """Per layer the columns [T, I + H] that are sent for the shown input, and the number of steps before the exit."""
    sent = trace(task.model.lstm, lstm.policy, task.shown)
    with torch.no_grad(), al.stream(lstm, batch_size=1) as session:
        exited_at = 0
        while exited_at < len(task.shown) and not bool(session.exited.all()):
            session.step(task.shown[exited_at : exited_at + 1])
            exited_at += 1
    return [np.where(np.arange(len(layer))[:, None] < exited_at, layer, False) for layer in sent], exited_at


def _adaptive(model: SequenceModel) -> al.AdaptiveLSTM:
    if not isinstance(model.lstm, al.AdaptiveLSTM):
        raise TypeError(f"expected a model from al.adapt(), got one with a {type(model.lstm).__name__}")
    return model.lstm
