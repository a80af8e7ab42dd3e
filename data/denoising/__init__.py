"""Corrupts texts for models to restore: masks tokens, drops spans, hides the end. Pure functions of tokens and a random generator."""
