"""Rewards: rules, user functions in worker processes, readings of reward models, and the weighted sum of several
parts."""
