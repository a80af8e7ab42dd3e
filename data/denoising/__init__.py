"""Texts made into something to restore: masked tokens, dropped spans, a hidden rest. Pure functions of tokens and a generator."""
