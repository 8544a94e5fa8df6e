"""What a pass over calibration inputs tells."""
