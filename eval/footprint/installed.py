"""What pip installs for a runtime: the files of its packages and of all that these require."""

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

OURS = Path(__file__).resolve().parents[2] / "adaptive_lstm"
NOT_INSTALLED = {"native", "__pycache__"}  # sources of the extension
WITHOUT_TORCH = "numpy", "safetensors"
PACKAGES: dict[str, tuple[str, ...]] = {
    "torch": ("torch", "numpy"),
    "ORT": ("onnxruntime", "numpy"),
    "OpenVINO": ("openvino", "numpy"),
    "adaptive": ("torch", *WITHOUT_TORCH, "scipy", "tqdm"),
}


def installed(kind: str) -> int:
    """Bytes of the packages of a runtime (``child.RUNTIMES``), with this one where it is ours."""
    names = WITHOUT_TORCH if kind.endswith("without torch") else PACKAGES[kind.split(" ")[0]]
    own = _ours() if kind.startswith("adaptive") else 0
    return own + sum(_size(name) for name in _closure(names))


def _closure(names: Iterable[str]) -> set[str]:
    found, left = set[str](), list(names)
    while left:
        name = left.pop().lower().replace("_", "-")
        if name not in found:
            found.add(name)
            needed = map(Requirement, metadata.requires(name) or ())
            left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _size(name: str) -> int:
    files = (Path(str(file.locate())) for file in metadata.files(name) or ())
    return sum(path.stat().st_size for path in files if path.is_file() and path.suffix != ".pyc")


def _ours() -> int:
    files = (path for path in OURS.rglob("*") if path.is_file() and not NOT_INSTALLED & set(path.parts))
    return sum(path.stat().st_size for path in files)
