"""The demo on a real model: the speaker encoder of Resemblyzer on real speech, from a folder that you name.

The folder `resemblyzer_3x256` holds, as its SOURCE.txt says, `weights.npz` (Resemblyzer 0.1.4, Apache-2.0: a
40 -> 3 x 256 LSTM and a linear layer) and `mel_test_other.npz` (100 LibriSpeech test-other utterances of ten speakers,
CC BY 4.0, as mel frames of 10 ms). Three speakers are there to fit on, two to choose on, the other five are reported.
An utterance is cut into 1.6 s windows; the mean of their embeddings stands for the utterance.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from ...errors import InputError
from ...losses import cosine_distance
from ...policies import Delta, Family, HoldLayers, SkipTimesteps
from ..sequence_file import read_arrays
from .task import SequenceModel, Task

FOLDER = "resemblyzer_3x256"
BANDS, HIDDEN, LAYERS, EMBEDDING = 40, 256, 3, 256
WINDOW, HOP = 160, 80  # frames
FIT_SPEAKERS, SEARCH_SPEAKERS = 3, 2
FIT_WINDOWS = SEARCH_WINDOWS = 150  # enough, and about half of the time of all
MAX_LOSS, CONFIDENCE = 0.01, 0.95


class SpeakerEncoder(SequenceModel):
    """[N, T, 40] mel frames -> [N, 256] embeddings of length 1, from the last hidden state of the top layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, HIDDEN, LAYERS, batch_first=True)
        self.linear = nn.Linear(HIDDEN, EMBEDDING)

    def forward(self, mels: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(mels)
        return normalize(torch.relu(self.linear(hidden[-1])), dim=1)


def load_task(zoo: Path) -> Task:
    """The encoder as a `Task`: equal error rate of speaker verification, and cosine with the original embedding.

    zoo: the folder `resemblyzer_3x256`, or the one that holds it.
    Raises FileNotFoundError if a file is missing, InputError if one is damaged.
    """
    folder = zoo / FOLDER if (zoo / FOLDER).is_dir() else zoo
    utterances = _read(folder / "mel_test_other.npz")
    speakers = sorted({_speaker(name) for name in utterances})
    apart = FIT_SPEAKERS + SEARCH_SPEAKERS
    groups = (speakers[:FIT_SPEAKERS], speakers[FIT_SPEAKERS:apart], speakers[apart:])
    fit, search, test = (_windows(utterances, group) for group in groups)
    fit_inputs, search_inputs, test_inputs = (torch.cat(list(part.values())) for part in (fit, search, test))
    counts = [len(windows) for windows in test.values()]

    def one_minus_eer(embeddings: Tensor) -> float:
        means = torch.stack([part.mean(0) for part in embeddings.split(counts)])
        return 1.0 - equal_error_rate(means, [_speaker(name) for name in test])

    def mean_cosine(embeddings: Tensor, dense: Tensor) -> float:
        return float(cosine_similarity(embeddings.double(), dense.double()).mean())

    shown = test_inputs[counts[0] // 2]
    return Task(
        title=f"speaker encoder (Resemblyzer), {LAYERS} x {HIDDEN} LSTM, {WINDOW} steps of {BANDS} mel bands",
        unit="windows of 1.6 s",
        model=_model(folder / "weights.npz"),
        fit_inputs=_spread(fit_inputs, FIT_WINDOWS),
        search_inputs=_spread(search_inputs, SEARCH_WINDOWS),
        test_inputs=test_inputs,
        score_name="1 - EER",
        score=one_minus_eer,
        agreement_name="cosine",
        agreement=mean_cosine,
        loss=cosine_distance,
        max_loss=MAX_LOSS,
        confidence=CONFIDENCE,
        families=lambda model: [Family(Delta), Family(SkipTimesteps), Family(HoldLayers)],
        caution="The windows are of five speakers and overlap, so they are not independent: read it as one about them.",
        shown=shown,
        picture=(shown.T + 1e-6).log().flip(0),
    )


def equal_error_rate(embeddings: Tensor, speakers: list[str]) -> float:
    """Error rate of "same speaker?" at the cosine where both kinds of error are equally frequent, over all pairs.

    embeddings: [U, K] one per utterance; speakers: the U names.
    """
    unit = normalize(embeddings, dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    cosine = (unit[first] * unit[second]).sum(1)
    same = torch.tensor([speakers[a] == speakers[b] for a, b in zip(first.tolist(), second.tolist(), strict=True)])
    falling = same[cosine.argsort(descending=True)].double()
    refused = 1 - falling.cumsum(0) / falling.sum()  # same speaker, but the cosine lies below the cut
    accepted = (1 - falling).cumsum(0) / (1 - falling).sum()  # another speaker above the cut
    at = int((refused - accepted).abs().argmin())
    return float((refused[at] + accepted[at]) / 2)


def _model(path: Path) -> SpeakerEncoder:
    model = SpeakerEncoder()
    try:
        model.load_state_dict({name: torch.from_numpy(values) for name, values in _read(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the speaker encoder: {error}") from error
    return model.eval()


def _spread(windows: Tensor, count: int) -> Tensor:
    """At most `count` of the windows, from all parts of them."""
    return windows[torch.linspace(0, len(windows) - 1, min(count, len(windows))).long()]


def _windows(utterances: dict[str, NDArray[np.float32]], speakers: Iterable[str]) -> dict[str, Tensor]:
    """Utterance -> its windows [W, 160, 40], for the given speakers."""
    wanted = set(speakers)
    return {
        name: torch.from_numpy(mels).unfold(0, WINDOW, HOP).transpose(1, 2).contiguous()
        for name, mels in utterances.items()
        if _speaker(name) in wanted
    }


def _speaker(utterance: str) -> str:
    return utterance.partition("-")[0]


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name the folder {FOLDER} of the model zoo, or the one above it")
    return read_arrays(path)
