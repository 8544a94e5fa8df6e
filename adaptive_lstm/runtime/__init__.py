"""What users hold: the module and the stream."""
