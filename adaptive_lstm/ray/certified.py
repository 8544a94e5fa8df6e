"""What a certificate says, short enough to stand in every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ModelFileError

DIGITS = 12  # of a SHA-256, enough to tell models apart


def in_words(certificate: Mapping[str, Any] | None) -> str:
    """Limits, confidence, policy and the beginning of the weights' SHA-256, in a line; "none" of no certificate.

    Raises:
        ModelFileError: it is none that a calibration made.
    """
    if certificate is None:
        return "none"
    try:
        limits = ", ".join(f"{one['name']} <= {one['limit']:g}" for one in certificate["losses"])
        confidence, weights = f"{certificate['confidence']:g}", str(certificate["weights"])[:DIGITS]
        said = f"{limits} at confidence {confidence}: {certificate['policy']}; weights {weights}"
        return said if certificate["certified"] is True else f"not certified ({said})"
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"certificate: got one that cannot be read ({error!r:.100}); save the model again"
        ) from None
