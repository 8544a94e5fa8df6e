"""The proof, before anything is timed, that a contender computes the LSTM that it was given.

The rule. *Wrong*, and excluded with the reason: outputs of another shape, NaN or infinity, a cosine with the original's
outputs below 0.5 (over all of them, whole sequences and streams apart), or float32 that is off by more than 1e-4
somewhere. *Imprecise*, and kept with its error: all else; what 8 bits cost is for the model's own metric to say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .contender import Absent, Contender, output

LEAST_COSINE = 0.5
STREAMED = 320  # steps that the stream of a contender is checked on, at most
EXACT = 1e-4  # largest error of float32; outputs of an LSTM without projection lie in -1..1


@dataclass(frozen=True)
class Checked:
    """Contenders that compute the right function, how far each is off, and who was excluded.

    errors: name -> largest absolute difference from the original's outputs; cosines: name -> the smaller of the two.
    """

    right: list[Contender]
    wrong: list[Absent]
    errors: dict[str, float]
    cosines: dict[str, float]


@torch.no_grad()
def check(contenders: Iterable[Contender], lstm: nn.LSTM, x: Tensor | Sequence[Tensor]) -> Checked:
    """Run every contender over the sequences x, [B, T, I] each: whole and, in one direction, STREAMED steps of them."""
    sequences = [x] if isinstance(x, Tensor) else list(x)
    streams = [] if lstm.bidirectional else _first(sequences)
    of_all = [_original(lstm, one) for one in sequences]
    expected = {
        "whole sequence": of_all,
        "stream": [y[:, : x.shape[1]] for x, y in zip(streams, of_all, strict=False)],  # causal: as if cut before
    }
    found = Checked([], [], {}, {})
    for who in contenders:
        uses = {"whole sequence": [output(who.whole(one)()) for one in sequences]}
        if streams:
            uses["stream"] = [_streamed(who, one) for one in streams]
        reasons = [f"{reason} ({use})" for use, got in uses.items() if (reason := _fault(who, got, expected[use]))]
        if reasons:
            found.wrong.append(Absent(who.name, f"excluded, its output is wrong: {'; '.join(reasons)}"))
            continue
        found.right.append(who)
        found.errors[who.name] = max(_error(got, expected[use]) for use, got in uses.items())
        found.cosines[who.name] = min(_cosine(got, expected[use]) for use, got in uses.items())
    return found


def _first(sequences: list[Tensor]) -> list[Tensor]:
    """The first STREAMED timesteps of all."""
    found, left = [], STREAMED
    for x in sequences:
        if left:
            found.append(x[:, :left])
            left -= found[-1].shape[1]
    return found


def _original(lstm: nn.LSTM, x: Tensor) -> Tensor:
    """What torch computes in float32, batch-first; by torch's own ``forward``, which the drop-in is a subclass of."""
    y = nn.LSTM.forward(lstm, x if lstm.batch_first else x.transpose(0, 1))[0]
    return y if lstm.batch_first else y.transpose(0, 1)


def _streamed(who: Contender, x: Tensor) -> Tensor:
    step = who.stream(x)
    return torch.stack([output(step()).reshape(len(x), -1) for _ in range(x.shape[1])], 1)


def _fault(who: Contender, got: list[Tensor], expected: list[Tensor]) -> str | None:
    """What is wrong with the outputs, or None."""
    for one, original in zip(got, expected, strict=True):
        if one.shape != original.shape:
            return f"shape {list(one.shape)} instead of {list(original.shape)}"
        if not one.isfinite().all():
            return "NaN or infinity"
    error, cosine = _error(got, expected), _cosine(got, expected)
    if who.precision == "fp32" and error > EXACT:
        return f"differs from torch by {error:.2g}, allowed {EXACT:g} in fp32"
    return f"cosine {cosine:.2f} with torch, at least {LEAST_COSINE:g} needed" if cosine < LEAST_COSINE else None


def _error(got: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))


def _cosine(got: list[Tensor], expected: list[Tensor]) -> float:
    """Over all sequences together; 1 for outputs that are equal, zeros included."""
    a, b = (torch.cat([one.flatten() for one in some]).double() for some in (got, expected))
    return 1.0 if torch.equal(a, b) else float(torch.cosine_similarity(a, b, dim=0))
