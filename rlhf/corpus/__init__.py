"""Corpora: steps by name, the texts that a run reserves, and the page about what became of a corpus."""
