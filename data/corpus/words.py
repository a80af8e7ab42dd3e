"""Words and sentences of a text in any language: what heuristics, deduplication and decontamination count and compare.

datatrove asks spaCy for words, which does 0.47 MB/s here and needs a package per language; a regular expression does forty
times that, and whoever compares texts wants the same words everywhere. Hand `WORDS` to datatrove in place of a language:
`split_into_words(text, WORDS)`, `GopherQualityFilter(language=WORDS)`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from datatrove.utils.text import TERMINAL_PUNCTUATION
from datatrove.utils.word_tokenizers import WordTokenizer

# Thai and Lao, Burmese, Khmer, kana, Chinese characters: scripts that put no spaces between words
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "".join(c for c in map(chr, range(0x10000)) if unicodedata.category(c).startswith("M"))  # `\w` lacks them
_LETTERS = rf"[^\W{_UNSPACED}]++ (?: [{_MARKS}]++ [^\W{_UNSPACED}]*+ )*+"
_WORD = re.compile(
    rf"""
    {_LETTERS} (?: (?: ['’·] | (?<=\d)[.,](?=\d) ) {_LETTERS} )*+  # don't, l’eau, 1,234.50
    | [{_UNSPACED}] [{_MARKS}]*+
    | (?<!\S) [^\w\s]++ (?!\S)  # what stands alone: a dash, a bullet, ***
    """,
    re.VERBOSE,
)

_SPACED_END = ".!?"  # ends a sentence where a space follows
_FREE_END = re.escape("".join(sorted(TERMINAL_PUNCTUATION - set(_SPACED_END))))
_CLOSING = re.escape("\"'*_)]}”’»›」』）】》〉")
_SENTENCE_END = re.compile(
    rf"""
    (?P<spaced> [{_SPACED_END}]++ ) [{_CLOSING}]*+
    | [{_FREE_END}]++ [{_SPACED_END}{_FREE_END}{_CLOSING}]*+
    | \n [^\S\n]*+ \n  # a blank line
    """,
    re.VERBOSE,
)
_NEXT = re.compile(r"(\s?+)\s*+(\S?)")


class Words(WordTokenizer):
    """Words close to the boundaries of Unicode (UAX 29, section 4), without its dictionaries: letters, digits and marks that
    follow each other, contractions and numbers in one piece; in scripts without spaces (Chinese, Japanese, Thai, …) every
    letter. Punctuation is no word, unless it stands between spaces: rules that look for words without letters (Rae et al.
    2021, appendix A) mean it.

    Sentences end with terminal punctuation, or at a blank line. After . ! ? a space must follow, and no small letter; an
    initial ("J. Smith") ends none. Other abbreviations ("Dr. Smith") do: no list of them serves all languages.
    """

    def word_tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text[start:stop] for start, stop in self._spans(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """(start, stop) of each sentence of `sent_tokenize`: in order, apart, without the white space around them."""
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


def _ends(text: str) -> Iterator[int]:
    for match in _SENTENCE_END.finditer(text):
        if not match["spaced"] or _ends_here(text, match):
            yield match.end()
    yield len(text)


def _ends_here(text: str, match: re.Match[str]) -> bool:
    space, following = _NEXT.match(text, match.end()).groups()
    before = text[max(match.start() - 2, 0) : match.start()]
    initial = match["spaced"] == "." and before[-1:].isupper() and not before[:-1].isalnum()
    return (bool(space) or not following) and not following.islower() and not initial


WORDS = Words()
