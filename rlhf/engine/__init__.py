"""The training engine: one process is one rank; no Ray in here."""
