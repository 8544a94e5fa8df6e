"""Static compression, in place: which weights are removed, in which precision the rest are, and how they compensate."""
