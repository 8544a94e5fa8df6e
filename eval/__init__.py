"""Experiments on the package: one script per question, run as ``python -m eval.NAME``. They are not installed."""
