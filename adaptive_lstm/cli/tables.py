"""Results as plain text: aligned tables, and the machine that they were measured on."""

from collections.abc import Mapping, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text: the first column left-aligned, the others right-aligned, a rule below the first row.

    Args:
        rows: the header, then the others; all of one length.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def place(machine: Mapping[str, object]) -> str:
    """Threads, processor, backend and instruction set in one phrase.

    Args:
        machine: as `bench.machine` gives it.
    """
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return f"{threads} on {machine['cpu']} ({machine['backend']} backend, {machine['isa']})"
