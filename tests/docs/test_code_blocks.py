"""Every code block of README and docs runs: Python as a reader would paste it, commands as far as their options go."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from eval.report import readme, records

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs" / "pages").rglob("*.md")])
FENCE = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


NEEDED = {  # packages that need not be there
    "docs/pages/ray.md": ("ray", "make test-services installs it and runs this"),
    "docs/pages/serve.md": ("uvicorn", "it comes with the extra 'serve'"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray warns of itself
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of one page share their names, from top to bottom."""
    for needed, where in filter(None, [NEEDED.get(name(page))]):
        pytest.importorskip(needed, reason=f"{needed} is not installed; {where}")
    for variable, value in (
        ("RAY_AUTH_MODE", "disabled"),
        ("RAY_USAGE_STATS_ENABLED", "0"),
    ):  # nothing is left in ~/.ray
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for n, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{name(page)}, block {n}", "exec", dont_inherit=True), names)


def test_languages() -> None:
    """A block in a language that no test here reads would go unchecked."""
    found = {language for page in PAGES for language, _ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert found <= {"", "python", "toml", "dockerfile"}, found


def test_containers() -> None:
    """A recipe copies the wheel that is built, into an image whose Python it takes, and installs what it copied."""
    recipes = [(name(page), block) for page in PAGES for block in blocks(page, "dockerfile")]
    assert recipes
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert oldest
    for page, recipe in recipes:
        image, copied, installed, command = recipe.splitlines()
        python = re.fullmatch(r"FROM python:3\.(\d+)-slim", image)
        assert python, page
        assert int(python[1]) >= int(oldest[1]), page
        wheel, *files = copied.removeprefix("COPY dist/").removesuffix(" ./").split()
        assert fnmatch("adaptive_lstm_runtime-1-cp312-abi3-manylinux_2_28_x86_64.whl", wheel), page
        assert installed == f"RUN pip install --no-cache-dir {wheel}", page
        assert set(json.loads(command.removeprefix("CMD "))[1:]) <= set(files), page


def commands() -> list[tuple[str, str]]:
    """(page, command) for every line of the blocks without a language that starts like one."""
    found = []
    for page in PAGES:
        for block in blocks(page, ""):
            for line in block.splitlines():
                command = line.partition("#")[0].strip()
                if command and not line.startswith((" ", "+")):
                    found.append((name(page), command))
    return found


MODULES = {
    command
    for page in PAGES
    for command in re.findall(r"python -m (eval(?:\.[a-z_]+)+)", page.read_text(encoding="utf-8"))
}


def test_make_targets() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wanted = {word for _, command in commands() if command.startswith("make ") for word in shlex.split(command)[1:2]}
    assert wanted
    assert wanted <= targets, wanted - targets


def test_every_command_is_of_a_known_kind() -> None:
    known = (
        "make ",
        "pip install ",
        "adaptive-lstm ",
        "python -m ",
        "bash .ci/run",
        "git ",
        "export ",
        "sudo apt-get install ",
        "cmake ",
        "ctest ",
        "ADAPTIVE_LSTM_",
    )
    unknown = [found for found in commands() if not found[1].startswith(known)]
    assert not unknown, unknown


COMMANDS = re.compile(r"`(adaptive-lstm [a-z][^`]*)`")
SHOWN = sorted({command for page in PAGES for command in COMMANDS.findall(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", SHOWN)
def test_command_line(command: str) -> None:
    """The command exists, and so does every option that is shown."""
    words = shlex.split(command)[1:]
    run = subprocess.run(
        [sys.executable, "-m", "adaptive_lstm", words[0], "--help"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    for option in (word for word in words if word.startswith("--")):
        assert option.partition("=")[0] in run.stdout, option


@pytest.mark.parametrize("module", sorted(MODULES))
def test_evaluations(module: str) -> None:
    """``python -m eval.X`` is there and explains itself."""
    run = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "usage" in run.stdout


def test_the_table_of_the_readme_is_generated() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- table: python -m eval.report --readme -->\n")[2].partition("\n<!-- end of table -->")[
        0
    ]
    assert table == readme.markdown(records.read(ROOT / "eval" / "results"))
