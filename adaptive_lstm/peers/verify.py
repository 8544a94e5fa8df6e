"""Check, before anything is timed, that a contender computes the LSTM that it was given.

Wrong, and excluded with the reason: outputs of another shape, NaN or infinity, a cosine with the original's outputs
below 0.5 (over all outputs; whole sequences and streams separately), or float32 with an error above 1e-4 anywhere.
Everything else is kept, with its error: whether the error of 8 bits matters is decided by the model's own metric.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contender import Contender, Unavailable, output

MIN_COSINE = 0.5
MAX_STREAMED = 320  # steps of a stream that are checked
FP32_TOLERANCE = 1e-4  # absolute; outputs of an LSTM without projection lie in -1..1


@dataclass(frozen=True)
class Verification:
    """The result of a check. Of whole sequences and streams the worse figure counts.

    Attributes:
        verified: contenders that compute the right function.
        excluded: the others, with the reason.
        errors: name of a verified contender -> largest absolute difference from the original's outputs.
        cosines: name of a verified contender -> cosine with the original's outputs.
    """

    verified: list[Contender]
    excluded: list[Unavailable]
    errors: dict[str, float]
    cosines: dict[str, float]


@torch.no_grad()
def verify_contenders(contenders: Iterable[Contender], lstm: nn.LSTM, x: Tensor | Sequence[Tensor]) -> Verification:
    """Run every contender on whole sequences and, unless bidirectional, step by step, and compare with torch.

    Args:
        contenders: built from ``lstm``.
        lstm: the original; a drop-in is checked against torch's own ``forward`` too.
        x: [B, T, I], one or several; the first MAX_STREAMED timesteps are streamed too.
    """
    sequences = [x] if isinstance(x, Tensor) else list(x)
    streams = [] if lstm.bidirectional else _first_steps(sequences)
    outputs = [_original(lstm, one) for one in sequences]
    expected = {
        "whole sequence": outputs,
        "stream": [y[:, : x.shape[1]] for x, y in zip(streams, outputs, strict=False)],  # causal: cut afterwards
    }
    found = Verification([], [], {}, {})
    for who in contenders:
        uses = {"whole sequence": [output(who.whole(one)()) for one in sequences]}
        if streams:
            uses["stream"] = [_streamed(who, one) for one in streams]
        reasons = [f"{reason} ({use})" for use, got in uses.items() if (reason := _fault(who, got, expected[use]))]
        if reasons:
            found.excluded.append(Unavailable(who.name, f"excluded, its output is wrong: {'; '.join(reasons)}"))
            continue
        found.verified.append(who)
        found.errors[who.name] = max(_error(got, expected[use]) for use, got in uses.items())
        found.cosines[who.name] = min(_cosine(got, expected[use]) for use, got in uses.items())
    return found


def _first_steps(sequences: list[Tensor]) -> list[Tensor]:
    """The first MAX_STREAMED timesteps of all sequences together."""
    found, left = [], MAX_STREAMED
    for x in sequences:
        if left:
            found.append(x[:, :left])
            left -= found[-1].shape[1]
    return found


def _original(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """Outputs in float32, batch-first, by ``nn.LSTM.forward`` even if ``lstm`` is an ``AdaptiveLSTM``."""
    y = nn.LSTM.forward(lstm, x if lstm.batch_first else x.transpose(0, 1))[0]
    return y if lstm.batch_first else y.transpose(0, 1)


def _streamed(who: Contender, x: Tensor) -> Tensor:
    step = who.stream(x)
    return torch.stack([output(step()).reshape(len(x), -1) for _ in range(x.shape[1])], 1)


def _fault(who: Contender, got: list[Tensor], expected: list[Tensor]) -> str | None:
    """Why the outputs are wrong, or None."""
    for one, original in zip(got, expected, strict=True):
        if one.shape != original.shape:
            return f"shape {list(one.shape)} instead of {list(original.shape)}"
        if not one.isfinite().all():
            return "NaN or infinity"
    error, cosine = _error(got, expected), _cosine(got, expected)
    if who.precision == "fp32" and error > FP32_TOLERANCE:
        return f"differs from torch by {error:.2g}, allowed {FP32_TOLERANCE:g} in fp32"
    return f"cosine {cosine:.2f} with torch, at least {MIN_COSINE:g} needed" if cosine < MIN_COSINE else None


def _error(got: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))


def _cosine(got: list[Tensor], expected: list[Tensor]) -> float:
    """Over all sequences together; 1 for equal outputs, even if they are zeros."""
    a, b = (torch.cat([one.flatten() for one in some]).double() for some in (got, expected))
    return 1.0 if torch.equal(a, b) else float(torch.cosine_similarity(a, b, dim=0))
