"""Finds names of people by the words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from data.corpus.pii.placeholders import PiiSpan

_TITLES = r"Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Doctor|Herr|Frau|Mme|Mlle|Monsieur|Madame|Señor|Señora|Sr|Sra"
_TITLE = re.compile(rf"(?<![\w&])(?:{_TITLES})\b\.?[ \u00a0](?:(?:Dr|Prof)\.[ ])*")
_INTRODUCTION = re.compile(
    r"\b(?:my (?:full )?name is|my name['’]s|mein name ist|ich heiße|je m['’]appelle|me llamo|mi chiamo)[ ]",
    re.IGNORECASE,
)
# parts of the introductions: to search for them first is faster than the expression
_INTRODUCING = ("name ", "name's ", "name’s ", "heiße ", "appelle ", "llamo ", "chiamo ")
# an introduction only before at least two names and a punctuation mark
_SELF = re.compile(r"\b(?:I am|I['’]m|This is|this is|Ich bin|Je suis|Soy)[ ]")
_GREETING = re.compile(r"^[ \t>]*(?:Dear|Liebe|Lieber|Cher|Chère|Querido|Querida)[ ]", re.MULTILINE)
_FIELD = re.compile(
    r"^[ \t>*-]*(?:(?:full|your|contact|customer|patient) )?name[ \t]*:[ \t]*", re.MULTILINE | re.IGNORECASE
)
_PART_FIELD = re.compile(
    r"^[ \t>*-]*(?:first name|last name|given name|family name|surname|vorname|nachname|nom|prénom)[ \t]*:[ \t]*",
    re.MULTILINE | re.IGNORECASE,
)
_CLOSING = re.compile(
    r"^[ \t>]*(?:(?:yours )?(?:sincerely|faithfully|truly)(?: yours)?|(?:with )?(?:best|kind|kindest|warm|warmest) (?:regards|wishes)"
    r"|regards|mit freundlichen grüßen|viele grüße|cordialement|saludos)[,.!]?[ \t]*\n\s{0,8}",
    re.MULTILINE | re.IGNORECASE,
)
# an initial, or letters with ' and - inside, without the 's of a genitive
_WORD = r"(?:[^\W\d_]\.(?=[ \u00a0][^\W\d_])|[^\W\d_](?:[^\W\d_]|['’-](?!s\b)(?=[^\W\d_]))+)"
_WORDS = re.compile(rf"{_WORD}(?:[ \u00a0]{_WORD}){{0,3}}")
_PARTICLE = re.compile("van|von|der|den|de|del|della|di|da|du|la|le|bin|ibn|al|zu|ten")
_NO_NAME = re.compile(
    "Sirs?|Madam|Ma'am|All|Everyone|Team|Customers?|Client|Friends?|Colleagues?|Readers?|Editor|God|Lord|Santa|Diary|Hiring|Recruiter"
    "|Applicant|Members?|Parents|Students|Valued|President|Speaker|Chairman|Chairwoman|Secretary|Minister|Ambassador|Mayor|Judge"
    "|Right|Wrong|Damen|Herren|Doctor|Professor|Pepper|Congressman|Universe|World|America|Sorry|Sure|Happy|Glad|Not|Very|Just"
    "|Still|Also|The|An?|And|Or|But|If|I|No|Who|Reviewers?|Resources|Support|Service|Office|Department|Management|Committee"
)


def names(text: str) -> Iterator[PiiSpan]:
    for match in _TITLE.finditer(text):
        yield from _name(text, match.end())
    folded = text.lower()
    if any(word in folded for word in _INTRODUCING):
        for match in _INTRODUCTION.finditer(text):
            yield from _name(text, match.end())
    for match in _SELF.finditer(text):
        yield from _name(text, match.end(), least_words=2, before=",.!;\n")
    for match in _GREETING.finditer(text):
        after_title = _TITLE.match(text, match.end())
        yield from _name(text, after_title.end() if after_title else match.end(), before=",:!\n")
    for match in _FIELD.finditer(text):
        yield from _name(text, match.end(), least_words=2, before=",;\n")
    for match in (*_PART_FIELD.finditer(text), *_CLOSING.finditer(text)):
        yield from _name(text, match.end(), before=",;\n")


def _name(text: str, start: int, least_words: int = 1, before: str = "") -> Iterator[PiiSpan]:
    """The name that begins at `start`, if there is one, and if the text ends after it or one of the characters of
    `before` follows (default: any)."""
    run = _WORDS.match(text, start)
    words = list(takewhile(_may_belong, re.split("[ \u00a0]", run[0]))) if run else []
    while words and not words[-1][0].isupper():
        words.pop()
    stop = start + len(" ".join(words))
    if words and len(words) >= least_words and (not before or text[stop : stop + 1] in before):
        yield PiiSpan(start, stop, " ".join(words))


def _may_belong(word: str) -> bool:
    return bool((word[0].isupper() and not _NO_NAME.fullmatch(word)) or _PARTICLE.fullmatch(word))
