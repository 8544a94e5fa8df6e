"""The evaluation scripts, and real models."""
