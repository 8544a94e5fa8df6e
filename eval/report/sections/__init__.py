"""One file per question, with its ``SECTION``."""
