"""Reports for a person: HTML pages and their charts, the calibration of reward models, and tables for the terminal."""
