"""All of a compressed, calibrated model but its parameters in one file, and back."""
