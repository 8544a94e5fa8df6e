"""Results as plain text: aligned tables, ratios with their spread, and the machine that they were taken on."""

from collections.abc import Mapping, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as needed, the first to the left, the others to the right; a rule below the first row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def place(machine: Mapping[str, object]) -> str:
    """Threads, processor, backend and instruction set in one phrase; `machine` as `bench.machine` gives it."""
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return f"{threads} on {machine['cpu']} ({machine['backend']} backend, {machine['isa']})"
