"""The C files of this package with the names of a model in them."""

from __future__ import annotations

import re
from importlib.resources import files

ENGINE = ("start", "kernels", "cell", "operand", "layer", "number", "hold", "exits", "api")
"""The parts of the engine, in an order in which each relies on those before it."""


def template(name: str) -> str:
    """A file of the folder ``c``."""
    return files(__package__).joinpath("c", name).read_text(encoding="utf-8")


def engine() -> str:
    """The engine as one file."""
    return "\n".join(template(f"{name}.c") for name in ENGINE)


def named(text: str, name: str) -> str:
    """The same text with every ``alstm`` as ``name``, and every ``ALSTM`` as its capitals."""
    return re.sub("(?<![A-Z])ALSTM", name.upper(), re.sub("(?<![a-z])alstm", name, text))
