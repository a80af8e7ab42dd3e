"""Drops duplicates over the whole corpus: equal documents, near-duplicates, and repeated spans of sentences."""
