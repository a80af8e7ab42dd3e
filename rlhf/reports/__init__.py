"""What a run looked like, as files for a person: the run report, and the calibration of reward models."""
