"""``export_c``: an LSTM as C99 source for a microcontroller, with a test that proves it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .. import files
from ..artifact.artifact import load_certificate, save
from ..artifact.stacks import Stack, Stacks, read_stacks
from ..calibration.certificate import Certificate
from ..codec import brief, is_one_of, short_repr
from ..errors import InputError, ModelFileError
from ..files import FilePath
from ..runtime.adapt import adapt, lstms_of
from ..runtime.lstm import AdaptiveLSTM
from ..types import FloatArray
from .golden import golden, signal
from .golden_source import exact, golden_source
from .program import Program, program
from .refusals import check_exportable
from .sizes import PUBLIC, sizes
from .targets import target_of
from .templates import engine, named, template
from .weights_source import weights_source

MOST_INPUT = 2.0**96  # of what the engine takes

# An #include of such a header would find NAME.h.
_HEADERS = """assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg
stdatomic stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype
arm_mve features"""
_TARGETS = "all clean help install package test"
TAKEN = frozenset(f"{_HEADERS} {_TARGETS}".split())
"""Names that would mean something else in the sources or in CMakeLists.txt."""


@short_repr
@dataclass(frozen=True)
class CExport:
    """What was written.

    ``folder``: where.
    ``files``: their names.
    ``weight_bytes``, ``state_floats``, ``state_ints``, ``state_shorts``: sizes of the constants, and of the arrays of
    a state, in elements of 4, 4 and 2 bytes.
    """

    folder: str
    files: tuple[str, ...]
    weight_bytes: int
    state_floats: int
    state_ints: int
    state_shorts: int


def export_c(
    model: nn.Module | FilePath,
    out_dir: FilePath,
    *,
    name: str = "model",
    target: str = "generic",
    lstm: str | None = None,
    inputs: FloatArray | None = None,
    certificate: Certificate | None = None,
) -> CExport:
    """Write one LSTM as C99: no allocation, no libm, no global state, any number of streams on one set of weights.

    The folder gets ``NAME.h`` (the functions), ``NAME.c``, ``NAME_weights.c`` (constants), a golden sequence with
    ``test_NAME.c``, ``CMakeLists.txt``, and ``NAME.json`` (certificate, sizes, hashes). Outputs are those of the
    package's portable kernels (``ADAPTIVE_LSTM_ISA=generic``) in a stream of one row, bit for bit where activations are
    integers; floats may be added in another order where weights are zero, or where a threshold is set on a large
    matrix. Compile with ``-ffp-contract=off``.

    Args:
        model: an adapted model, one ``nn.LSTM``, or a file written by ``save(model, path, weights=True)``.
        out_dir: a folder; it is made if it is missing, and files of these names are replaced.
        name: a C identifier, but for names of C's headers; every symbol begins with it.
        target: "generic" C; "m4", "m7", "m55": Cortex-M with an FPU, tested under QEMU; "a53". The sources are the
            same but for the order of weights, and choose their inner loops when they are compiled; a target adds its
            flags and a board to run on.
        lstm: module name of the LSTM, where the model holds several.
        inputs: [T, I] the golden sequence; typical inputs make a better test. None: a random one.
        certificate: of the model, for the record; a file brings its own.

    Raises:
        UnsupportedError: C cannot carry it: a bidirectional or projected LSTM, policies or heads in Python, exits of
            whole sequences, queues of inputs.
        InputError: no such LSTM or target, a name that is no identifier or means something else to C or CMake, or
            inputs that do not fit.
        ModelFileError: the file has no weights, cannot be read, or holds a certificate of another policy; or the folder
            cannot be written.
        BackendError: the native extension, which runs the golden sequence, is missing.
    """
    _check_name(name)
    board, out = target_of(target), _folder(out_dir)
    with tempfile.TemporaryDirectory() as folder:
        path = _as_file(model, folder, certificate)
        stacks, covering = read_stacks(path), load_certificate(path)
        chosen = _chosen(stacks, lstm)
        stack = stacks.by_name[chosen]
        check_exportable(chosen, stack.shape, stack.settings.policy)
        x = signal(stack) if inputs is None else _checked(inputs, stack)
        found, done = golden(path, chosen, x), program(stack, quads=board.quads)
    public = sizes(done)
    texts = _sources(done, public) | {"alstm_golden.h": golden_source(found, done)}
    if board.compiler:
        texts[f"{target}.cmake"] = board.toolchain()
    if board.board:
        texts |= {part: template(part) for part in ("board.c", "board.ld")}
    texts = {named(file, name): named(text, name) for file, text in texts.items()}
    record = _record(name, target, covering, stack, done, public, texts)
    texts[f"{name}.json"] = json.dumps(record, indent=1) + "\n"
    _write(Path(out), texts)
    pools = done.pools
    return CExport(out, tuple(texts), done.weight_bytes, pools.floats, pools.ints, pools.shorts)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(f"name: got {brief(name)}, expected a C identifier in small letters, such as 'vad'")
    if name in TAKEN:
        raise InputError(
            f"name: got {name!r}, which C names a header after, or CMake a target, expected another, such as 'vad'"
        )


def _folder(path: FilePath) -> str:
    try:
        name = os.fsdecode(path)
    except TypeError as error:
        raise InputError(f"out_dir: got {type(path).__name__}, expected the path of a folder") from error
    if not name or "\0" in name:
        raise InputError(f"out_dir: got {name!r:.300}, expected the path of a folder")
    return name


def _as_file(model: object, folder: str, certificate: Certificate | None) -> Path:
    """The model as a file with weights."""
    if not isinstance(model, nn.Module):
        if not isinstance(model, str | bytes | os.PathLike):
            raise InputError(f"model: got {type(model).__name__}, expected a torch.nn.Module or the path of a file")
        return Path(os.fsdecode(model))
    fast = model if any(isinstance(m, AdaptiveLSTM) for m in model.modules()) else adapt(model)
    for name, one in lstms_of(fast).items():
        check_exportable(name, one.stack_shape, one.policy)
    path = Path(folder) / "model"
    save(fast, path, certificate=certificate, weights=True)
    return path


def _chosen(stacks: Stacks, lstm: str | None) -> str:
    names = list(stacks.by_name)
    if lstm is None and len(names) == 1:
        return names[0]
    if lstm is None or not is_one_of(lstm, names):
        raise InputError(f"lstm: got {brief(lstm)}, expected one of {', '.join(map(repr, names))}")
    return lstm


def _checked(inputs: object, stack: Stack) -> FloatArray:
    expected = f"numbers of at most {MOST_INPUT:g} [T, {stack.shape.input_size}] with T >= 2"
    try:
        given = inputs.detach().cpu().numpy() if isinstance(inputs, torch.Tensor) else np.asarray(inputs)
        with np.errstate(over="ignore"):
            x = given.astype(np.float32, casting="same_kind")
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"inputs: got {type(inputs).__name__} ({error!s:.100}), expected {expected}") from None
    if x.ndim != 2 or x.shape[1] != stack.shape.input_size or len(x) < 2:
        raise InputError(f"inputs: got shape {x.shape}, expected {expected}")
    if not (np.abs(x) <= MOST_INPUT).all():
        raise InputError(f"inputs: got {np.abs(x).max()} among them, expected {expected}")
    return x


def _sources(done: Program, found: Mapping[str, int]) -> dict[str, str]:
    """The engine and the model by file name, still with the names of the templates."""

    def macros(names: list[str]) -> str:
        return "".join(f"#define ALSTM_{name} {found[name]}\n" for name in names)

    header = template("alstm.h").replace('#include "alstm_sizes.h"\n', macros([n for n in found if n in PUBLIC]))
    private = template("alstm_model.h").replace(
        '#include "alstm_parts.h"\n', "\n" + macros([n for n in found if n not in PUBLIC])
    )
    return {
        "alstm.h": header,
        "alstm_model.h": private,
        "alstm.c": engine(),
        "alstm_weights.c": weights_source(done),
        "test_alstm.c": template("test_alstm.c"),
        "CMakeLists.txt": template("CMakeLists.txt"),
    }


def _record(
    name: str,
    target: str,
    covering: Certificate | None,
    stack: Stack,
    done: Program,
    found: Mapping[str, int],
    texts: Mapping[str, str],
) -> dict[str, object]:
    monitor = stack.settings.monitor
    return {
        "name": name,
        "target": target,
        "shape": asdict(stack.shape),
        "policy": repr(stack.settings.policy),
        "bit_exact": exact(done),
        "sizes": {key.lower(): found[key] for key in PUBLIC},
        "macs_per_step": sum(4 * len(one.live) * (one.x.columns + one.h.columns) for one in done.layers),
        "certificate": None if covering is None else json.loads(covering.to_json()),
        "monitor": None if monitor is None else {key: asdict(one) for key, one in monitor.items()},
        "sha256": {file: hashlib.sha256(text.encode()).hexdigest() for file, text in texts.items()},
    }


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"cannot make the folder {folder}: {error.strerror}") from error
    for file, text in texts.items():
        files.write(folder / file, text.encode())
