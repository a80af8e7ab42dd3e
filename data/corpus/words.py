"""Words and sentences of a text in any language, which heuristics, deduplication and decontamination count and compare.

datatrove's own tokenizers use spaCy: 0.47 MB/s here, and one package per language. A regular expression is forty times
as fast, and gives all steps the same words. Pass `datatrove_words()` to datatrove in place of a language:
`GopherQualityFilter(language=datatrove_words())`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache

# Thai and Lao, Burmese, Khmer, kana, Chinese characters: scripts that put no spaces between words
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_SPACED_END = ".!?"  # ends a sentence if a space follows
_CLOSING = re.escape("\"'*_)]}”’»›」』）】》〉")
_NEXT = re.compile(r"(\s?+)\s*+(\S?)")


class Words:
    """Word boundaries are close to Unicode's (UAX 29, section 4), without its dictionaries. A word is a run of letters,
    digits and marks; contractions and numbers are one word. In scripts without spaces (Chinese, Japanese, Thai, …) each
    letter is a word. Punctuation is a word only between spaces, because rules that look for words without letters (Rae
    et al. 2021, appendix A) count it.

    A sentence ends with terminal punctuation or at a blank line. After . ! ? a space must follow, and no small letter.
    An initial ("J. Smith") ends no sentence. Others ("Dr. Smith") do: no list of abbreviations serves all languages.
    """

    def word_tokenize(self, text: str) -> list[str]:
        return _word().findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:stop] for start, stop in self._spans(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """(start, stop) of each sentence of `sent_tokenize`, in order, without the white space around it."""
        return list(self._spans(text))

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        start = 0
        for stop in _ends(text):
            sentence = text[start:stop]
            stripped = sentence.strip()
            if stripped:
                begin = start + len(sentence) - len(sentence.lstrip())
                yield begin, begin + len(stripped)
            start = stop


WORDS = Words()


@cache
def datatrove_words() -> Words:
    """WORDS, which datatrove then accepts as one of its tokenizers."""
    from datatrove.utils.word_tokenizers import WordTokenizer

    WordTokenizer.register(Words)
    return WORDS


def simplified(text: str) -> str:
    """The text without letter case, accents, punctuation and repeated white space. As datatrove's `simplify_text`, but
    numbers keep their value: "born in 1912" does not repeat "born in 1980"."""
    from datatrove.utils.text import TextNormConfig, simplify_text

    # the search for accents takes half of the time, and ASCII has none
    return simplify_text(text, TextNormConfig(norm_numbers=False, norm_unicode_diacritics=not text.isascii()))


@cache
def _word() -> re.Pattern[str]:
    marks = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c).startswith("M"))  # `\w` lacks them
    letters = rf"[^\W{_UNSPACED}]++ (?: [{marks}]++ [^\W{_UNSPACED}]*+ )*+"
    return re.compile(
        rf"""
        {letters} (?: (?: ['’·] | (?<=\d)[.,](?=\d) ) {letters} )*+  # don't, l’eau, 1,234.50
        | [{_UNSPACED}] [{marks}]*+
        | (?<!\S) [^\w\s]++ (?!\S)  # punctuation between spaces: a dash, a bullet, ***
        """,
        re.VERBOSE,
    )


@cache
def _sentence_end() -> re.Pattern[str]:
    from datatrove.utils.text import TERMINAL_PUNCTUATION

    free_end = re.escape("".join(sorted(TERMINAL_PUNCTUATION - set(_SPACED_END))))  # needs no space after it
    return re.compile(
        rf"""
        (?P<spaced> [{_SPACED_END}]++ ) [{_CLOSING}]*+
        | [{free_end}]++ [{_SPACED_END}{free_end}{_CLOSING}]*+
        | \n [^\S\n]*+ \n  # a blank line
        """,
        re.VERBOSE,
    )


def _ends(text: str) -> Iterator[int]:
    for match in _sentence_end().finditer(text):
        if not match["spaced"] or _ends_here(text, match):
            yield match.end()
    yield len(text)


def _ends_here(text: str, match: re.Match[str]) -> bool:
    space, following = _NEXT.match(text, match.end()).groups()
    before = text[max(match.start() - 2, 0) : match.start()]
    initial = match["spaced"] == "." and before[-1:].isupper() and not before[:-1].isalnum()
    return (bool(space) or not following) and not following.islower() and not initial
