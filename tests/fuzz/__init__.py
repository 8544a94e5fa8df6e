"""Fuzzing: random cases against an oracle, each in a process of its own kind. ``python -m tests.fuzz --help``.

``target`` says what can be fuzzed; ``campaign`` runs cases in the processes of ``pool``, which survive a crash or a
hang of a case and name it; ``shrink`` makes a failure small; ``record`` is what a run leaves.
"""
