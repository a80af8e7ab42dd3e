"""A language model as judge: which of two answers is better, or how good one is."""
