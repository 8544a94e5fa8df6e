"""The demo: its data are what they claim, its model is as good as it claims, and a short run ends in sane numbers."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from adaptive_lstm.demo import digits, resemblyzer
from adaptive_lstm.demo.outcome import Outcome
from adaptive_lstm.demo.run import DELTA, EXACT, INT8, TORCH, run
from adaptive_lstm.demo.table import render
from adaptive_lstm.errors import InputError

MEGABYTE = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run(digits.load_task(), taus=(0.0, 0.01, 0.3), seconds=0.3)


def _fingerprints(images: Tensor) -> set[str]:
    return {hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images}


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
    fit, test = _fingerprints(images.fit), _fingerprints(images.test)
    assert not fit & test
    assert fit | test <= _fingerprints(torch.from_numpy(load_digits().images).to(torch.uint8))


def test_labels_are_those_of_the_data_set() -> None:
    images, source = digits.load_images(), load_digits()
    labels = {
        image.astype(np.uint8).tobytes(): int(label) for image, label in zip(source.images, source.target, strict=True)
    }
    assert [labels[image.numpy().tobytes()] for image in images.test] == images.labels.tolist()


def test_reading_keeps_the_corners_of_the_picture() -> None:
    image = torch.arange(64, dtype=torch.uint8).remainder(17).reshape(1, 8, 8)
    columns = digits.read_columns(image)
    assert columns.shape == (1, digits.STEPS, digits.ROWS)
    torch.testing.assert_close(columns[0, 0, 0], image[0, 0, 0] / 16)
    torch.testing.assert_close(columns[0, -1, 0], image[0, 0, -1] / 16)
    torch.testing.assert_close(columns[0, 0, -1], image[0, -1, 0] / 16)


def test_the_embedded_model_is_as_accurate_as_when_it_was_trained() -> None:
    task = digits.load_task()
    with torch.no_grad():
        assert task.score(task.model(task.test_inputs)) == pytest.approx(0.9956, abs=0.003)


def test_a_run_has_sane_numbers(outcome: Outcome) -> None:
    rows = {row.name: row for row in outcome.rows}
    assert list(rows) == [TORCH, EXACT, INT8, DELTA]
    assert rows[EXACT].agreement == 1.0
    assert rows[EXACT].score == rows[TORCH].score
    assert rows[INT8].agreement > 0.99
    assert all(rows[name].activity == 1.0 for name in (TORCH, EXACT, INT8))
    assert 0 < rows[DELTA].activity < 0.9
    assert all(row.sequence.median > row.step.median > 0 for row in outcome.rows if row.name != TORCH)


def test_the_chosen_threshold_is_the_largest_that_keeps_the_decisions(outcome: Outcome) -> None:
    kept = [trial.tau for trial in outcome.trials if trial.fit_agreement >= outcome.min_agreement]
    assert outcome.tau == max(kept)
    assert outcome.tau < 0.3, "0.3 is there to be refused"
    activities = [trial.activity for trial in outcome.trials]
    assert activities == sorted(activities, reverse=True)


def test_columns_that_moved_have_the_shape_of_the_operands(outcome: Outcome) -> None:
    assert [moved.shape for moved in outcome.moved] == [(64, 16 + 160), (64, 160 + 160)]
    share = sum(moved.sum() for moved in outcome.moved) / sum(moved.size for moved in outcome.moved)
    assert 0 < share < 1


def test_the_figure_is_written(outcome: Outcome, tmp_path: Path) -> None:
    draw = pytest.importorskip("adaptive_lstm.demo.plot").draw
    draw(outcome, tmp_path / "demo.png")
    assert (tmp_path / "demo.png").read_bytes().startswith(PNG)


def test_the_table_names_all_contenders_and_the_conditions(outcome: Outcome) -> None:
    text = render(outcome)
    for expected in (TORCH, EXACT, INT8, DELTA, "accuracy", "activity", "1 thread on", f"{outcome.tau:g}"):
        assert expected in text
    assert all(len(line) <= 180 for line in text.splitlines())  # a refused ratio says how wide its spread was


def test_the_demo_needs_no_plotting_library_to_run() -> None:
    assert "matplotlib" not in Path(sys.modules[run.__module__].__file__ or "").read_text(encoding="utf-8")


def _clusters(spread: float) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(5, 0)
    return centres + spread * torch.randn(centres.shape, generator=generator), [str(i // 5) for i in range(20)]


def test_equal_error_rate_of_separated_and_of_meaningless_embeddings() -> None:
    assert resemblyzer.equal_error_rate(*_clusters(0.01)) == 0.0
    assert resemblyzer.equal_error_rate(*_clusters(100.0)) == pytest.approx(0.5, abs=0.15)


def test_the_speaker_encoder_reproduces_the_error_rate_of_its_source(zoo: Path) -> None:
    folder = zoo / resemblyzer.FOLDER
    task = resemblyzer.load_task(zoo)
    golden = np.load(folder / "golden.npz")
    with torch.no_grad():
        outputs, _ = task.model.lstm(torch.from_numpy(golden["x"]))
        torch.testing.assert_close(outputs, torch.from_numpy(golden["lstm_out"]), atol=1e-5, rtol=0)
        assert task.score(task.model(task.test_inputs)) == pytest.approx(0.9868, abs=0.003)


def test_a_damaged_zoo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mel_test_other.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"mel_test_other\.npz is damaged"):
        resemblyzer.load_task(tmp_path)


def test_a_missing_zoo_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mel_test_other\.npz is missing; name the folder resemblyzer_3x256"):
        resemblyzer.load_task(tmp_path)


def test_a_zoo_folder_becomes_a_task_with_speakers_apart(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"{speaker}-1-{utterance}" for speaker in range(10, 20) for utterance in range(2)]
    mels: dict[str, Any] = {name: generator.random((250, 40), dtype=np.float32) for name in names}
    np.savez(tmp_path / "mel_test_other.npz", **mels)
    model = resemblyzer.SpeakerEncoder()
    weights: dict[str, Any] = {name: values.numpy() for name, values in model.state_dict().items()}
    np.savez(tmp_path / "weights.npz", **weights)
    task = resemblyzer.load_task(tmp_path)
    assert task.test_inputs.shape == (5 * 2 * 2, 160, 40)
    with torch.no_grad():
        embeddings = task.model(task.test_inputs)
    assert task.agreement(embeddings, embeddings) == pytest.approx(1.0)
    assert 0 <= task.score(embeddings) <= 1
