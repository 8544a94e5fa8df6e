"""The command line `adaptive-lstm`: parse the arguments, run one command, report errors.

Results go to stdout as text, or as one JSON document with `--json`; progress and remarks go to stderr. Bad input ends
with one line on stderr and exit code 2.

A command is a module with DESCRIPTION, EXAMPLES, `add_options` and `execute`; only the chosen one is loaded.
"""

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Protocol, cast

from ..errors import AdaptiveLSTMError
from . import help as words

MODULES = {name: f".{name.replace('-', '_')}" for name in words.SUMMARIES} | {"demo": ".demo.command"}


class Command(Protocol):
    """The module of a command."""

    DESCRIPTION: str
    EXAMPLES: str

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add everything but --json."""

    def execute(self, options: argparse.Namespace) -> None:
        """Do the work and print the result; raise AdaptiveLSTMError or OSError for bad input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those of the process by default.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names and names in files may be no text
    options = _parser(arguments[0] if arguments else "").parse_args(arguments)
    try:
        options.execute(options)
    except (AdaptiveLSTMError, OSError, MemoryError) as error:
        print(f"adaptive-lstm: error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser(chosen: str) -> argparse.ArgumentParser:
    """The parser of all commands, with the options of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="adaptive-lstm",
        description=words.DESCRIPTION,
        epilog=words.EPILOGUE,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {version('adaptive-lstm')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, summary in words.SUMMARIES.items():
        if name != chosen:
            commands.add_parser(name, help=summary)
            continue
        command = cast("Command", import_module(MODULES[name], __package__))
        added = commands.add_parser(
            name,
            help=summary,
            description=command.DESCRIPTION,
            epilog=f"examples:\n{command.EXAMPLES}",
            formatter_class=_HelpFormatter,
        )
        command.add_options(added)
        added.add_argument("--json", action="store_true", help="print one JSON document instead of text")
        added.set_defaults(execute=command.execute)
    return parser


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Our own line breaks in descriptions, and room for the names of options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=118)
