"""What `adaptive-lstm report` does: say what a file that `adaptive_lstm.save` has written makes of its model."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import adaptive_lstm as al

from ..runtime.adapt import adapted_lstms
from .frontier import proof


@dataclass(frozen=True)
class Report:
    """The matrices of a loaded model, its policies by module name, and its certificate, if it has one."""

    title: str
    matrices: al.CompressReport
    policies: dict[str, str]
    certificate: al.Certificate | None

    def __str__(self) -> str:
        policies = "\n".join(f"{name or 'the LSTM'}: {policy}" for name, policy in self.policies.items())
        promise = "no certificate" if self.certificate is None else proof(self.certificate)
        return f"{self.title}\n\n{self.matrices}\n\n{policies}\n{promise}"

    def as_dict(self) -> dict[str, object]:
        """Everything as plain values."""
        certificate = None if self.certificate is None else json.loads(self.certificate.to_json())
        return {"matrices": self.matrices.as_dict(), "policies": self.policies, "certificate": certificate}


def report(path: Path, model: nn.Module) -> Report:
    """What a file says about its model.

    Raises:
        ModelFileError: the file cannot be read, or is of another model.
    """
    fast = al.load(path, model).eval()
    policies = {name: repr(lstm.policy) for name, lstm in adapted_lstms(fast).items()}
    return Report(str(path), al.report(fast), policies, al.load_certificate(path))
