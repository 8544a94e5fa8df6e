"""The demonstration behind `adaptive-lstm demo`: what dropping in, int8 and a certified policy bring.

`digits` (embedded, offline) and `resemblyzer` (a real speaker encoder, from a folder you name) each load a `task.Task`;
`run` measures it, `table` prints the outcome and `plot` draws it.
"""
