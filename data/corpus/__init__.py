"""Cleans a corpus: reads files, extracts documents, and passes them through cleaning steps, one file unit at a time.

`clean.py` runs the steps; `step.py` says what a step is; `source.py` and `units.py` divide files into units;
`readers.py` reads them. `extract/`, `dedup/` and `pii/` have rooms of their own.
"""
