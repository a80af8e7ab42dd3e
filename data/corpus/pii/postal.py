"""Finds postal addresses by their streets, in English, German and French forms."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.corpus.pii.placeholders import PiiSpan

_GAP = r"(?:,?[ \u00a0]{1,2}|,?[ ]?\n[ \t]{0,40})"  # between the parts, which may be on two lines
_CAPITAL = r"(?:[A-ZÀ-ÖØ-Þ][\w'’.-]{0,60})"
_TOWN = rf"{_CAPITAL}(?:[ -]{_CAPITAL}|[ ](?:of|am|an|der|im|sur|de|la|le)[ ]{_CAPITAL}){{0,3}}"
_STATES = "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
_STATE = rf"(?:(?:{_STATES})\b|[A-Z][a-z]+(?:[ ][A-Z][a-z]+)?(?=[ ][0-9]{{5}}))"
_ZIP = r"[0-9]{5}(?:-[0-9]{4})?\b"
_POSTCODE = r"[A-Z]{1,2}[0-9][A-Z0-9]?[ ][0-9][A-Z]{2}\b"  # British
_ENGLISH_TOWN = rf"(?:{_GAP}{_TOWN})??(?:{_GAP}{_STATE}{_GAP}{_ZIP}|{_GAP}{_POSTCODE}|{_GAP}{_STATE}(?![\w]))"
_UNIT = rf"(?:{_GAP}(?:(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Room|Rm|Flat)\.?[ ]?\#?|\#[ ]?)[A-Z0-9][\w-]{{0,5}}\b)?"
_STREET = (
    r"(?:(?:Street|Avenue|Road|Boulevard|Lane|Drive|Court|Place|Square|Terrace|Parkway|Circle|Highway|Crescent|Close|Way|Trail|Alley"
    r"|Gardens|Mews|Row|Hill|Walk|Plaza)\b|(?:St|Ave|Av|Rd|Blvd|Ln|Dr|Ct|Pl|Sq|Ter|Pkwy|Cir|Hwy|Cres)\b\.?)"
)
_DIRECTION = r"(?:[NSEW]|NE|NW|SE|SW|North|South|East|West)"
_ENGLISH = re.compile(
    rf"""(?<![\w.,$€£/-])(?P<number>[0-9]{{1,5}})(?:[A-Za-z]|-[0-9]{{1,4}}|[ ]?½)?[ ](?:{_DIRECTION}\.?[ ])?
    (?:(?:{_CAPITAL}|[0-9]{{1,3}}(?:st|nd|rd|th))[ ]){{1,3}}{_STREET}
    (?:[ ]{_DIRECTION}\b)?{_UNIT}(?:{_ENGLISH_TOWN})?""",
    re.VERBOSE,
)
_BOX = re.compile(
    rf"(?i:\bP\.?[ ]?O\.?[ ]?Box)[ ]\#?[0-9]{{1,7}}\b(?:{_ENGLISH_TOWN})?|\bPostfach[ ][0-9][0-9 ]{{1,8}}[0-9]\b"
)
_GERMAN_STREET = re.compile(
    rf"""\b(?:{_CAPITAL}[ ]){{0,2}}[A-ZÄÖÜ][\w-]{{0,60}}(?:
        (?P<sure>straße|strasse|str\.|[ -](?:Straße|Strasse|Str\.))
      | weg|platz|allee|gasse|ring|ufer|damm|Weg|Platz|Allee|Gasse|Ring|Ufer|Damm
    )[ ]\Z""",
    re.VERBOSE,
)
_GERMAN_STREET_CHARACTERS = 200  # at most
_GERMAN_NUMBER = re.compile(r"[0-9]{1,4}(?:[ ]?[a-z]\b|[ ]?[-–/][ ]?[0-9]{1,4})?(?![\w]|[.,][0-9])")
_GERMAN_TOWN = re.compile(rf"{_GAP}(?:D-)?[0-9]{{5}}[ ]{_TOWN}")
# A space between a street and its number. To search for streets from the left would try every capital letter.
_GERMAN_HINT = re.compile(
    r" (?=[0-9])(?:(?<=aße )|(?<=sse )|(?<=tr\. )|(?<=eg )|(?<=atz )|(?<=lee )|(?<=ing )|(?<=fer )|(?<=amm ))"
)
_FRENCH = re.compile(
    rf"""(?<![\w.,$€£/-])[0-9]{{1,4}}(?:[ ]?(?:bis|ter))?,?[ ](?:rue|avenue|boulevard|place|allée|chemin|quai|impasse|cours)
    [ ](?:(?:de|du|des|la|le|les)[ ]|[dl]['’]){{0,2}}{_TOWN}(?:{_GAP}[0-9]{{5}}[ ]{_TOWN})?""",
    re.VERBOSE,
)
_YEAR_SAID = re.compile(r"\b(?:in|since|by|of|from|until|during|early|late|year)[ ]\Z", re.IGNORECASE)


def addresses(text: str) -> Iterator[PiiSpan]:
    for match in _ENGLISH.finditer(text):
        year = 1500 <= int(match["number"]) < 2100 and _YEAR_SAID.search(text, max(match.start() - 8, 0), match.start())
        if not year:
            yield _found(match)
    yield from map(_found, _FRENCH.finditer(text))
    if "Postfach" in text or "box" in text.lower():
        yield from map(_found, _BOX.finditer(text))
    yield from _german(text)


def _german(text: str) -> Iterator[PiiSpan]:
    """Streets with their numbers and the town after them. Without a town, only names that are surely streets count."""
    end = 0
    for hint in _GERMAN_HINT.finditer(text):
        begin = max(hint.end() - _GERMAN_STREET_CHARACTERS, end)
        street = _GERMAN_STREET.search(text, begin, hint.end())
        number = _GERMAN_NUMBER.match(text, hint.end()) if street else None
        if street and number:
            town = _GERMAN_TOWN.match(text, number.end())
            if town or street["sure"]:
                end = (town or number).end()
                yield _place(text, street.start(), end)


def _found(match: re.Match[str]) -> PiiSpan:
    return _place(match.string, match.start(), match.end())


def _place(text: str, start: int, stop: int) -> PiiSpan:
    return PiiSpan(start, stop, re.sub(r"[\s,]+", " ", text[start:stop]).casefold())
