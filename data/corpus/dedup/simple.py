"""Text without what does not make it another text: letter case, accents, punctuation, white space."""

from __future__ import annotations


def simplified(text: str) -> str:
    """As datatrove's `simplify_text`, but numbers keep their value: "born in 1912" does not repeat "born in 1980"."""
    from datatrove.utils.text import TextNormConfig, simplify_text

    # ASCII has no accents, and looking for them takes half the time
    return simplify_text(text, TextNormConfig(norm_numbers=False, norm_unicode_diacritics=not text.isascii()))
