"""Scaling laws: a grid of small trainings, a law fitted to their losses, and its predictions for larger models."""
