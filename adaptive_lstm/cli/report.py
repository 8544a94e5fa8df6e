"""`adaptive-lstm report`: describe the contents of a saved file."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from torch import nn

import adaptive_lstm as al

from ..runtime.adapt import adapted_lstms
from .frontier import certificate_text
from .help import MODEL
from .model_file import load_model
from .output import show

DESCRIPTION = f"""\
Describe the contents of a file that `adaptive-lstm compress` or adaptive_lstm.save has written: precision, zeros and
bytes of every matrix, time of a step before and after, policies, and the certificate if there is one.

{MODEL}
It must be the model that the file was made from. Without it: the demo's handwritten digits."""

EXAMPLES = """\
  adaptive-lstm report model.alstm
  adaptive-lstm report small.alstm my.py:build --json"""


@dataclass(frozen=True)
class FileContents:
    """The contents of a saved file, applied to its model.

    Attributes:
        title: the path.
        matrices: the weight matrices as they are executed.
        policies: of the LSTMs, by module name.
        certificate: None if there is none.
    """

    title: str
    matrices: al.CompressReport
    policies: dict[str, str]
    certificate: al.Certificate | None

    def __str__(self) -> str:
        policies = "\n".join(f"policy of {name or 'the LSTM'}: {policy}" for name, policy in self.policies.items())
        certificate = "no certificate" if self.certificate is None else certificate_text(self.certificate)
        return f"{self.title}\n\n{self.matrices}\n\n{policies}\n{certificate}"

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        certificate = None if self.certificate is None else json.loads(self.certificate.to_json())
        return {"matrices": self.matrices.as_dict(), "policies": self.policies, "certificate": certificate}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="written by compress or adaptive_lstm.save")
    parser.add_argument("model", metavar="MODEL", nargs="?", help="file.py:factory")


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    if options.model is None:
        from .demo import digits

        model: nn.Module = digits.load_model()
    else:
        model = load_model(options.model)
    show(read_contents(options.file, model), as_json=options.json)


def read_contents(path: Path, model: nn.Module) -> FileContents:
    """Load a file into a copy of its model and describe it.

    Raises:
        ModelFileError: the file cannot be read, or belongs to another model.
    """
    fast = al.load(path, model).eval()
    policies = {name: repr(lstm.policy) for name, lstm in adapted_lstms(fast).items()}
    return FileContents(str(path), al.report(fast), policies, al.load_certificate(path))
