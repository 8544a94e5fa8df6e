"""The demo as a record, and on a real model: the speaker encoder of Resemblyzer on real speech.

``python -m eval.demo`` runs ``adaptive-lstm demo`` and keeps what it found. ``--zoo PATH`` does the same with the
speaker encoder. PATH holds the folder ``resemblyzer_3x256``: ``weights.npz`` (Resemblyzer 0.1.4, Apache-2.0: a 40 ->
3 x 256 LSTM and a linear layer) and ``mel_test_other.npz`` (100 utterances of ten speakers from LibriSpeech test-other,
CC BY 4.0, as mel frames of 10 ms). Three speakers are for fitting, two for choosing a policy, five for the report and
the certificate. An utterance is cut into windows of 1.6 s and represented by the mean of their embeddings.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from adaptive_lstm.cli.demo import digits
from adaptive_lstm.cli.demo.command import draw_outcome
from adaptive_lstm.cli.demo.run import run
from adaptive_lstm.cli.demo.task import DemoTask
from adaptive_lstm.cli.output import figure_path, show
from adaptive_lstm.cli.sequence_file import read_arrays
from adaptive_lstm.errors import InputError
from adaptive_lstm.losses import cosine_distance
from adaptive_lstm.policies import Delta, Family, HoldLayers, SkipTimesteps
from eval.shared import common
from eval.zoo.resemblyzer import BANDS, FOLDER, HIDDEN, LAYERS, WINDOW, SpeakerEncoder, equal_error_rate, windows

FIT_SPEAKERS, SEARCH_SPEAKERS = 3, 2
FIT_WINDOWS = SEARCH_WINDOWS = 150  # enough, and half as slow as all of them
MAX_LOSS, CONFIDENCE = 0.01, 0.95


def load_task(zoo: Path) -> DemoTask:
    """The encoder as a ``DemoTask``: equal error rate of speaker verification, cosine with the original embedding.

    Args:
        zoo: the folder ``resemblyzer_3x256``, or the one that holds it.

    Raises:
        FileNotFoundError: a file is missing.
        InputError: a file is damaged.
    """
    folder = zoo / FOLDER if (zoo / FOLDER).is_dir() else zoo
    utterances = _read(folder / "mel_test_other.npz")
    speakers = sorted({_speaker(name) for name in utterances})
    apart = FIT_SPEAKERS + SEARCH_SPEAKERS
    groups = (speakers[:FIT_SPEAKERS], speakers[FIT_SPEAKERS:apart], speakers[apart:])
    fit, search, test = (_windows(utterances, group) for group in groups)
    fit_inputs, search_inputs, test_inputs = (torch.cat(list(part.values())) for part in (fit, search, test))
    counts = [len(part) for part in test.values()]

    def one_minus_eer(embeddings: Tensor) -> float:
        means = torch.stack([part.mean(0) for part in embeddings.split(counts)])
        return 1.0 - equal_error_rate(means, [_speaker(name) for name in test])

    def mean_cosine(embeddings: Tensor, dense: Tensor) -> float:
        return float(cosine_similarity(embeddings.double(), dense.double()).mean())

    shown = test_inputs[counts[0] // 2]
    return DemoTask(
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
        caution="The windows come from five speakers and overlap, so they are not independent: take the certificate as "
        "a statement about these speakers.",
        shown=shown,
        picture=(shown.T + 1e-6).log().flip(0),
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, help=f"the folder {FOLDER}, or the one that holds it; without: digits")
    parser.add_argument("--out", type=figure_path, default=Path("adaptive_lstm_demo.png"), help="file for the figure")
    options = parser.parse_args(argv)
    name, task = ("speech", load_task(options.zoo)) if options.zoo else ("digits", digits.load_task())
    outcome = run(task)
    show(outcome, as_json=options.json)
    draw_outcome(outcome, options.out)
    found = {key: value for key, value in outcome.as_dict().items() if key not in ("machine", "frontier")}
    common.save(options, "demo", [{"group": name, "case": "certified", **found}])


def _model(path: Path) -> SpeakerEncoder:
    model = SpeakerEncoder()
    try:
        model.load_state_dict({name: torch.from_numpy(values) for name, values in _read(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not hold the weights of the speaker encoder: {error}") from error
    return model.eval()


def _spread(inputs: Tensor, count: int) -> Tensor:
    """At most ``count`` of the inputs, evenly spread."""
    return inputs[torch.linspace(0, len(inputs) - 1, min(count, len(inputs))).long()]


def _windows(utterances: dict[str, NDArray[np.float32]], speakers: Iterable[str]) -> dict[str, Tensor]:
    """Utterance -> its windows [W, 160, 40], for the given speakers."""
    wanted = set(speakers)
    return {name: windows(torch.from_numpy(mels)) for name, mels in utterances.items() if _speaker(name) in wanted}


def _speaker(utterance: str) -> str:
    return utterance.partition("-")[0]


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name the folder {FOLDER} of the model zoo, or the one above it")
    return read_arrays(path)


if __name__ == "__main__":
    main()
