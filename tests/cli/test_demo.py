"""The demo: its data are what they claim, its model is as good as it claims, and a short run ends in sane numbers."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from adaptive_lstm.bench import Ratio
from adaptive_lstm.cli.demo import digits
from adaptive_lstm.cli.demo.outcome import DemoOutcome
from adaptive_lstm.cli.demo.run import CERTIFIED, EXACT, INT8, TORCH, run
from adaptive_lstm.cli.demo.task import DemoTask
from adaptive_lstm.losses import Loss
from adaptive_lstm.policies import ExitInTime, Family, SkipTimesteps

from ..support.helpers import fingerprints

MEGABYTE = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n"


NEVER = Loss("never", lambda output, dense, target: 1.0, lambda dense: True)


def _small() -> DemoTask:
    task, labels = digits.load_task(), digits.load_images().labels[:60]
    return replace(
        task,
        fit_inputs=task.fit_inputs[:12],
        search_inputs=task.search_inputs[:20],
        test_inputs=task.test_inputs[:60],
        score=lambda logits: float((logits.argmax(1) == labels).double().mean()),
        max_loss=0.2,
    )


@pytest.fixture(scope="module")
def outcome() -> DemoOutcome:
    return run(_small(), seconds=0.3)


@pytest.fixture(scope="module")
def uncertified() -> DemoOutcome:
    task = _small()
    return run(replace(task, loss=NEVER, families=lambda model: [Family(ExitInTime)]), seconds=0.3)


def test_embedded_files_are_small_and_complete() -> None:
    assert digits.MODEL_FILE.stat().st_size + digits.IMAGES_FILE.stat().st_size < 0.75 * MEGABYTE
    images = digits.load_images()
    assert images.fit.shape == (300, 8, 8)
    assert images.test.shape == (450, 8, 8)
    for pictures in (images.fit, images.test):
        assert pictures.dtype == torch.uint8
        assert int(pictures.max()) == digits.INK
    assert sorted(set(images.labels.tolist())) == list(range(digits.CLASSES))


def test_fit_and_test_pictures_are_distinct_pictures_of_the_data_set() -> None:
    images = digits.load_images()
    fit, test = fingerprints(images.fit), fingerprints(images.test)
    assert not fit & test
    assert fit | test <= fingerprints(torch.from_numpy(load_digits().images).to(torch.uint8))


def test_labels_are_those_of_the_data_set() -> None:
    images, source = digits.load_images(), load_digits()
    labels = {
        image.astype(np.uint8).tobytes(): int(label) for image, label in zip(source.images, source.target, strict=True)
    }
    assert [labels[image.numpy().tobytes()] for image in images.test] == images.labels.tolist()


def test_a_strip_is_paper_but_for_the_picture() -> None:
    image = torch.arange(64, dtype=torch.uint8).remainder(17).reshape(1, 8, 8)
    (strip,) = digits.strips(image, torch.tensor([30]), 120, 0.0, torch.Generator().manual_seed(0))
    assert strip.shape == (120, digits.ROWS)
    paper = strip[0, 0]
    assert digits.PAPER[0] <= paper <= digits.PAPER[1]
    assert (strip[:30] == paper).all()
    assert (strip[30 + digits.WIDTH :] == paper).all()
    last = 30 + digits.WIDTH - 1
    for row, column, (y, x) in ((0, 30, (0, 0)), (0, last, (0, 7)), (-1, 30, (7, 0)), (-1, last, (7, 7))):
        torch.testing.assert_close(strip[column, row], paper * (1 - image[0, y, x] / 16))


def test_strips_are_drawn_from_their_seed() -> None:
    images = digits.load_images().fit[:20]
    first, again, other = (digits.read_strips(images, seed) for seed in (1, 1, 2))
    assert first.shape == (20, digits.STEPS, digits.ROWS)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_embedded_model_is_as_accurate_as_when_it_was_trained() -> None:
    task = digits.load_task()
    with torch.no_grad():
        assert task.score(task.model(task.test_inputs)) == pytest.approx(0.9778, abs=0.003)


def test_a_run_has_sane_numbers(outcome: DemoOutcome) -> None:
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == [TORCH, EXACT, INT8, CERTIFIED]
    assert rows[EXACT].agreement == 1.0
    assert rows[EXACT].score == rows[TORCH].score
    assert rows[INT8].agreement > 0.98
    assert all(rows[name].macs == 1.0 for name in (TORCH, EXACT, INT8))
    assert 0 < rows[CERTIFIED].macs < 0.9
    assert all(row.sequence.median > row.step.median > 0 for row in outcome.rows if row.name != TORCH)


def test_the_certificate_rests_on_the_reported_inputs_and_agrees_with_the_table(outcome: DemoOutcome) -> None:
    record, row = outcome.calibration.certificate, outcome.rows[-1]
    assert record.certified
    assert {name: split["count"] for name, split in record.sequences.items()} == {"fit": 12, "search": 20, "test": 60}
    assert record.losses[0]["mean"] == pytest.approx(1 - row.agreement)
    assert record.savings["macs"] == pytest.approx(row.macs)
    assert record.losses[0]["bound"] <= 0.2


def test_the_whole_demo_asks_for_what_its_pictures_can_prove() -> None:
    task = digits.load_task()
    splits = task.splits
    assert (len(splits.fit), len(splits.search), len(splits.test)) == (100, 200, 450)
    assert (task.max_loss, task.confidence) == (0.03, 0.95)
    assert [family.policy for family in task.families(task.model)] == [ExitInTime, SkipTimesteps]


def test_without_a_certificate_nothing_is_skipped_and_it_is_said(uncertified: DemoOutcome, tmp_path: Path) -> None:
    assert [row.name for row in uncertified.rows] == [TORCH, EXACT, INT8]
    assert "not certified: no policy passed never <= 0.2" in str(uncertified)
    assert uncertified.exited_at == uncertified.steps
    assert all(sent.all() for sent in uncertified.sent)
    draw = pytest.importorskip("adaptive_lstm.cli.demo.plot").draw
    draw(uncertified, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)


def test_the_record_holds_every_candidate(outcome: DemoOutcome) -> None:
    record = json.loads(json.dumps(outcome.as_dict()))
    assert record["certificate"]["policy"] in {point["name"] for point in record["frontier"] if point["certified"]}
    assert len(record["frontier"]) == len(outcome.calibration.frontier)
    assert [row["name"] for row in record["rows"]] == [TORCH, EXACT, INT8, CERTIFIED]


def test_columns_that_are_sent_have_the_shape_of_the_operands(outcome: DemoOutcome) -> None:
    assert [sent.shape for sent in outcome.sent] == [(320, 16 + 160), (320, 160 + 160)]
    assert 0 < outcome.exited_at <= outcome.steps
    assert not any(sent[outcome.exited_at :].any() for sent in outcome.sent)
    share = sum(sent.sum() for sent in outcome.sent) / sum(sent.size for sent in outcome.sent)
    assert 0 < share < 1


def test_the_figure_is_written(outcome: DemoOutcome, tmp_path: Path) -> None:
    draw = pytest.importorskip("adaptive_lstm.cli.demo.plot").draw
    draw(outcome, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)


def test_the_table_names_all_contenders_and_the_conditions(outcome: DemoOutcome) -> None:
    text = str(outcome)
    for expected in (TORCH, EXACT, INT8, CERTIFIED, "accuracy", "work", "1 thread on", "60 strips", "certified at"):
        assert expected in text
    assert all(len(line) <= 180 for line in text.splitlines())  # a refused ratio says how wide its spread was
    assert outcome.verdict in text


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (Ratio(0.86, 0.8, 0.9, 20), "SLOWER, 0.86"),
        (Ratio(0.97, 0.9, 1.04, 20), "no gain measured, 0.97"),
        (Ratio(1.03, 0.96, 1.1, 20), "no gain measured, 1.03"),
        (Ratio(1.7, 1.6, 1.8, 20), "1.7"),
    ],
)
def test_only_a_measured_gain_reads_as_one(outcome: DemoOutcome, gain: Ratio, words: str) -> None:
    told = replace(outcome, sequence_gain=gain, stream_gain=gain).verdict
    assert f"nothing: {words}" in told
    assert f"in a stream {words}" in told


def test_the_demo_needs_no_plotting_library_to_run() -> None:
    assert "matplotlib" not in Path(sys.modules[run.__module__].__file__ or "").read_text(encoding="utf-8")
