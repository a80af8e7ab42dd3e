"""Scaling laws: a grid of small trainings, the law fitted to their losses, and what it says of larger ones."""
