"""Rewards for the tests of the loops, found by import path as a user's would be."""

import math

from data.sample import Sample


def patchy(sample: Sample) -> float:
    """No score for two samples in four; the others' differ on every other row."""
    return (math.nan, math.inf, 1.0, float(sample.prompt.row % 2))[sample.index]


def equal(sample: Sample) -> float:
    return 1.0


def short(sample: Sample) -> float:
    return -len(sample.text) / 100
