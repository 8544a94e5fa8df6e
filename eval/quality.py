"""How much quality does each runtime keep for its speed, on a real model? Pretrained speaker encoder, real speech.

``python -m eval.quality --zoo PATH`` reads PATH/resemblyzer_3x256 (3 x 256 LSTM, windows of 160 mel frames). Quality is
the cosine of a window's embedding with the one that torch computes in fp32, on held-out speakers.
Time is for one window and for one streaming step, batch 1. Peers are shown at their own quality, and the speed of
ours counts only above the bar: speed alone would reward a runtime that breaks the model.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import adaptive_lstm as al
from adaptive_lstm.bench import Timing, format_seconds, ratio
from adaptive_lstm.compression.compress import Rounding
from adaptive_lstm.peers import PEERS, Adaptive, Contender, build, verify_contenders
from eval.shared import common
from eval.shared.targets import Target, brief, judge, record

MODEL = "resemblyzer_3x256"
FRAMES = 160
FIT_SPEAKERS = 5  # the first of ten fit the sensitivity, the others judge
TIMED = 8  # windows per timed call, spread over the judging ones
STREAMED = 2 * FRAMES  # steps per timed call
TAUS = (0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.03)
BAR = 0.995  # mean cosine from which a speed counts
WINDOW_TARGETS = {"torch": 6.0, "ORT": 3.0}  # against -> at least
STREAM_TARGETS = {"torch": 100.0}
PRUNE = al.Prune("unstructured", 0.2, saliency="second-order", gamma=0.75, compensate="refit", ridge=0.1)
ROUNDING: Rounding = "compensated"
PRUNED_TAUS = (0.01, 0.0125, 0.015, 0.0175)
COMPOSED_BAR, COMPOSED_TARGET = 0.99, 2.0  # of pruned + int8 + delta against int8 alone, per step


class SpeakerEncoder(nn.Module):
    """Mel frames [B, T, 40] -> unit embeddings [B, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: Tensor) -> Tensor:
        return self.embed(self.lstm(mels)[0][:, -1])

    def embed(self, h: Tensor) -> Tensor:
        """h: [B, 256] top-layer state after the last frame."""
        return nn.functional.normalize(torch.relu(self.linear(h)), dim=1)


@dataclass(frozen=True)
class Quality:
    """Cosine with the dense embedding: mean and worst over all windows, mean over the streamed ones; activity."""

    mean: float
    worst: float
    stream: float
    activity: float | None


def load(folder: Path) -> tuple[SpeakerEncoder, Tensor, Tensor]:
    """The encoder, the windows [N, 160, 40] to fit on and those, of other speakers, to judge on."""
    encoder = SpeakerEncoder().eval()
    with np.load(folder / "weights.npz") as weights:
        state = {name: torch.tensor(weights[name]) for name in encoder.state_dict()}
    encoder.load_state_dict(state)
    with np.load(folder / "mel_test_other.npz") as mels:
        utterances = {name: torch.tensor(mels[name]) for name in mels}
    speakers = sorted({name.split("-")[0] for name in utterances})

    def windows(chosen: list[str], hop: int) -> Tensor:
        speech = (u for name, u in utterances.items() if name.split("-")[0] in chosen)
        return torch.stack([u[s : s + FRAMES] for u in speech for s in range(0, len(u) - FRAMES, hop)])

    return encoder, windows(speakers[:FIT_SPEAKERS], 240), windows(speakers[FIT_SPEAKERS:], 400)


def ours(encoder: SpeakerEncoder, fit: Tensor) -> list[Adaptive]:
    """Exact fp32, int8 (also with a byte for h between layers), int8 with delta columns, and all that pruned.

    Thresholds are scaled by the sensitivity measured on ``fit`` [N, 160, 40], which pruning is fitted on too.
    """
    exact, int8 = al.adapt(encoder), al.adapt(encoder)
    batches = list(fit.split(32))
    al.compress(int8, batches, quantize=al.Quantize("int8"), rounding=ROUNDING)
    sensitivity = al.measure_sensitivity(exact, fit.split(32))
    bytewise = al.adapt(encoder)
    al.compress(bytewise, batches, quantize=al.Quantize("int8", input_levels=127), rounding=ROUNDING)
    variants = [
        Adaptive("adaptive fp32", "fp32", _stack(exact)),
        Adaptive("adaptive int8", "int8", _stack(int8)),
        Adaptive("adaptive int8/127", "int8", _stack(bytewise)),
    ]
    for tau in TAUS:
        skipping = al.AdaptiveLSTM.from_lstm(_stack(int8))
        skipping.policy = al.Delta.scaled(sensitivity, tau=tau)
        variants.append(Adaptive(f"int8 + delta {tau:g}", "int8", skipping))
    return variants + pruned(encoder, fit)


def pruned(encoder: SpeakerEncoder, fit: Tensor) -> list[Adaptive]:
    """A fifth of the weights pruned, int8, and delta columns, scaled by the pruned model's own sensitivity."""
    smaller = al.adapt(encoder)
    with torch.enable_grad():
        al.compress(smaller, list(fit.split(32)), prune=PRUNE, quantize=al.Quantize("int8"), rounding=ROUNDING)
        sensitivity = al.measure_sensitivity(smaller, fit.split(32))
    variants = [Adaptive("pruned + int8", "int8", _stack(smaller))]
    for tau in PRUNED_TAUS:
        skipping = al.AdaptiveLSTM.from_lstm(_stack(smaller))
        skipping.policy = al.Delta.scaled(sensitivity, tau=tau)
        variants.append(Adaptive(f"pruned + int8 + delta {tau:g}", "int8", skipping))
    return variants


def _stack(model: nn.Module) -> al.AdaptiveLSTM:
    lstm = model.get_submodule("lstm")
    assert isinstance(lstm, al.AdaptiveLSTM)
    return lstm


def judge_quality(contender: Contender, encoder: SpeakerEncoder, windows: Tensor) -> Quality:
    """Run every window [N, 160, 40] alone, as in deployment, and the first TIMED ones as streams too."""
    dense = encoder(windows)
    last, streamed, activities = [], [], []
    for window in windows.split(1):
        last.append(torch.as_tensor(contender.whole(window)()).float()[:, -1].clone())
        if isinstance(contender, Adaptive):
            activities.append(contender.last_run().activity)
    for window in windows[:TIMED].split(1):
        step = contender.stream(window)
        streamed.append(torch.as_tensor([step() for _ in range(FRAMES)][-1]).float().reshape(1, -1).clone())
    cosines = (encoder.embed(torch.cat(last)) * dense).sum(1)
    stream = (encoder.embed(torch.cat(streamed)) * dense[:TIMED]).sum(1)
    activity = sum(activities) / len(activities) if activities else None
    return Quality(float(cosines.mean()), float(cosines.min()), float(stream.mean()), activity)


def time_windows(shown: list[Contender], windows: Tensor, *, quick: bool) -> dict[str, Timing]:
    """Seconds per window; one timed call runs TIMED windows, so that all contenders see the same speech."""
    chosen = windows[:: max(1, len(windows) // TIMED)][:TIMED].split(1)
    calls = {who.name: _in_turn([who.whole(window) for window in chosen]) for who in shown}
    return {name: timing.per(len(chosen)) for name, timing in common.race(calls, quick=quick).items()}


def time_steps(shown: list[Contender], windows: Tensor, *, quick: bool) -> dict[str, Timing]:
    """Seconds per streaming step; one timed call runs STREAMED steps."""
    speech = windows.reshape(1, -1, windows.shape[2])[:, :STREAMED]
    calls = {who.name: _in_turn([who.stream(speech)] * STREAMED) for who in shown}
    return {name: timing.per(STREAMED) for name, timing in common.race(calls, quick=quick).items()}


def _in_turn(calls: list[Callable[[], Any]]) -> Callable[[], None]:
    def run() -> None:
        for call in calls:
            call()

    return run


def table(qualities: Mapping[str, Quality], windows: Mapping[str, Timing], steps: Mapping[str, Timing]) -> str:
    """One row per contender: quality, then time and speed for windows and for steps."""
    bases = [name for name in ("torch", "ORT") if name in windows]
    header = ["contender", "activity", "cosine", "worst", "streamed", "window", *(f"/ {b}" for b in bases)]
    header += ["step", *(f"/ {b}" for b in bases)]
    rows: list[list[object]] = []
    for name, quality in qualities.items():
        activity = "" if quality.activity is None else f"{quality.activity:.3f}"
        row: list[object] = [name, activity, f"{quality.mean:.4f}", f"{quality.worst:.3f}", f"{quality.stream:.4f}"]
        for timings in (windows, steps):
            row += [
                format_seconds(timings[name].median),
                *(brief(ratio(timings[base], timings[name])) for base in bases),
            ]
        rows.append(row)
    return common.table(f"{MODEL}: quality and speed, one thread, batch 1", header, rows)


def verdicts(
    qualities: Mapping[str, Quality], timings: Mapping[str, Timing], targets: dict[str, float]
) -> list[dict[str, object]]:
    """Compare the fastest of ours above the bar with the targets, and with the fastest peer above it."""
    good = sorted((n for n, q in qualities.items() if min(q.mean, q.stream) >= BAR), key=lambda n: timings[n].median)
    mine = next(name for name in good if name not in PEERS)
    best_peer = next(name for name in good if name in PEERS)
    return [judge(Target(mine, against, least), timings) for against, least in ({best_peer: 1.0} | targets).items()]


def composed(qualities: Mapping[str, Quality], steps: Mapping[str, Timing]) -> dict[str, object]:
    """The fastest step of pruned + int8 + delta that keeps COMPOSED_BAR, against int8 alone."""
    good = [n for n, q in qualities.items() if n.startswith("pruned") and min(q.mean, q.stream) >= COMPOSED_BAR]
    fastest = min(good, key=lambda n: steps[n].median, default="pruned + int8")
    return judge(Target(fastest, "adaptive int8", COMPOSED_TARGET), steps)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--zoo", type=Path, required=True, help=f"folder that holds {MODEL}/")
    options = parser.parse_args()
    folder = options.zoo / MODEL
    if not (folder / "weights.npz").is_file():
        parser.error(f"no weights.npz in {folder}; --zoo takes the folder that holds {MODEL}/")
    with common.inference(options.threads):
        common.headline(options)
        encoder, fit, judging = load(folder)
        peers, unavailable = build(encoder.lstm, PEERS, threads=options.threads, inputs=fit.split(1))
        contenders: list[Contender] = [*peers, *ours(encoder, fit)]
        found = verify_contenders([who for who in contenders if who.precision == "fp32"], encoder.lstm, judging[:1])
        shown = [who for who in contenders if who in found.verified or who.precision != "fp32"]
        qualities = {who.name: judge_quality(who, encoder, judging) for who in shown}
        windows = time_windows(shown, judging, quick=options.quick)
        steps = time_steps(shown, judging, quick=options.quick)
        records, lines = [], []
        for group, timings, targets in (("window", windows, WINDOW_TARGETS), ("step", steps, STREAM_TARGETS)):
            judged = verdicts(qualities, timings, targets)
            judged += [composed(qualities, timings)] if group == "step" else []
            lines += [f"{one['line']} per {group}" for one in judged]
            kept = {name: asdict(quality) for name, quality in qualities.items()}
            records.append({**record(group, MODEL, timings, judged), "quality": kept, "bar": BAR})
        if options.json:
            print("\n".join(json.dumps(one) for one in records))
        else:
            lines += [f"unavailable: {one.name} ({one.reason})" for one in unavailable + found.excluded]
            print("\n".join([table(qualities, windows, steps), f"at a mean cosine of at least {BAR}:", *lines]))
        common.save(options, "quality", records)


if __name__ == "__main__":
    main()
