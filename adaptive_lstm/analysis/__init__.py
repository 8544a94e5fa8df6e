"""Statistics of one pass over calibration inputs; nothing is changed."""
