"""Precision and quantization."""
