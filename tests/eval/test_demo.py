"""The demo on a real model: its error rate is that of its source, and its speakers are kept apart."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from adaptive_lstm.errors import InputError
from eval import demo
from eval.zoo.resemblyzer import FOLDER, SpeakerEncoder, equal_error_rate

from ..support.helpers import fingerprints


def _clusters(spread: float) -> tuple[Tensor, list[str]]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.eye(4).repeat_interleave(5, 0)
    return centres + spread * torch.randn(centres.shape, generator=generator), [str(i // 5) for i in range(20)]


def test_equal_error_rate_of_separated_and_of_meaningless_embeddings() -> None:
    assert equal_error_rate(*_clusters(0.01)) == 0.0
    assert equal_error_rate(*_clusters(100.0)) == pytest.approx(0.5, abs=0.15)


def test_the_speaker_encoder_reproduces_the_error_rate_of_its_source(zoo: Path) -> None:
    folder = zoo / FOLDER
    task = demo.load_task(zoo)
    golden = np.load(folder / "golden.npz")
    with torch.no_grad():
        outputs, _ = task.model.lstm(torch.from_numpy(golden["x"]))
        torch.testing.assert_close(outputs, torch.from_numpy(golden["lstm_out"]), atol=1e-5, rtol=0)
        assert task.score(task.model(task.test_inputs)) == pytest.approx(0.9868, abs=0.003)


def test_a_damaged_zoo_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mel_test_other.npz").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"mel_test_other\.npz is damaged"):
        demo.load_task(tmp_path)


def test_a_missing_zoo_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"mel_test_other\.npz is missing; name the folder resemblyzer_3x256"):
        demo.load_task(tmp_path)


def test_a_zoo_folder_becomes_a_task_with_speakers_apart(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"{speaker}-1-{utterance}" for speaker in range(10, 20) for utterance in range(2)]
    mels: dict[str, Any] = {name: generator.random((250, 40), dtype=np.float32) for name in names}
    np.savez(tmp_path / "mel_test_other.npz", **mels)
    model = SpeakerEncoder()
    weights: dict[str, Any] = {name: values.numpy() for name, values in model.state_dict().items()}
    np.savez(tmp_path / "weights.npz", **weights)
    task = demo.load_task(tmp_path)
    assert task.test_inputs.shape == (5 * 2 * 2, 160, 40)
    assert (len(task.fit_inputs), len(task.search_inputs)) == (3 * 2 * 2, 2 * 2 * 2)
    everything = torch.cat([task.fit_inputs, task.search_inputs, task.test_inputs])
    assert len(fingerprints(everything)) == len(everything)
    with torch.no_grad():
        embeddings = task.model(task.test_inputs)
    assert task.agreement(embeddings, embeddings) == pytest.approx(1.0)
    assert 0 <= task.score(embeddings) <= 1


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is missing"):
        demo.main(["--zoo", str(tmp_path), "--out", str(tmp_path / "demo.png"), "--results", str(tmp_path)])
    assert not list(tmp_path.iterdir())
