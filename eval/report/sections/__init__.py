"""One file per question, with its ``SECTION``."""

from importlib import import_module

from ..blocks import Section


def section(name: str) -> Section:
    """The section of the file NAME.py."""
    found: Section = import_module(f".{name}", __name__).SECTION
    return found
