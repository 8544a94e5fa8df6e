"""What a pass over calibration inputs tells, without changing anything."""
