"""`adaptive-lstm export-c`: write an LSTM of a saved file as C99, with a test that proves it."""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import adaptive_lstm as al

from ..errors import ModelFileError
from ..export.targets import TARGETS
from ..files import open_file
from .output import remark, show

DESCRIPTION = """\
Write an LSTM as C99 source for a microcontroller or any other processor: no allocation, no libm, no global state, and
any number of streams on one set of weights. A golden sequence with a test comes along; its outputs are those of this
package, bit for bit where activations are integers.

FILE must hold weights: adaptive_lstm.save(model, FILE, weights=True)."""

EXAMPLES = """\
  adaptive-lstm export-c model.alstm out/ --name vad
  adaptive-lstm export-c model.alstm out/ --name vad --target m4
  cmake -S out -B build -DCMAKE_TOOLCHAIN_FILE=m4.cmake && cmake --build build && ctest --test-dir build"""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        export: the files and their sizes.
    """

    export: al.CExport

    def __str__(self) -> str:
        one = self.export
        state = 4 * (one.state_floats + one.state_ints) + 2 * one.state_shorts
        return (
            f"{one.folder}: {', '.join(one.files)}\nweights {one.weight_bytes:,} bytes; arrays of a state {state:,} "
            "bytes, and counts"
        )

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self.export)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="written by adaptive_lstm.save(..., weights=True)")
    parser.add_argument("out", type=Path, metavar="FOLDER", help="where to; made if it is missing")
    parser.add_argument("--name", default="model", help="begins every symbol and file name (default: model)")
    parser.add_argument("--target", choices=list(TARGETS), default="generic", help="the processor (default: generic)")
    parser.add_argument("--lstm", metavar="MODULE", help="module name of the LSTM, if the file holds several")
    parser.add_argument("--inputs", type=Path, metavar="NPY", help="golden sequence [T, I] (default: a random one)")


def execute(options: argparse.Namespace) -> None:
    """Run the command."""
    inputs = None if options.inputs is None else _array(options.inputs)
    written = al.export_c(
        options.file, options.out, name=options.name, target=options.target, lstm=options.lstm, inputs=inputs
    )
    show(Written(written), as_json=options.json)
    remark(f"written: {options.out}")


def _array(path: Path) -> np.ndarray:
    try:
        with open_file(path) as file:
            return np.asarray(np.load(file, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ModelFileError(f"{path} is damaged or no .npy file: {error}") from error
