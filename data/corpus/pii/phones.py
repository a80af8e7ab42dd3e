"""Finds phone numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.corpus.pii.placeholders import PiiSpan
from data.errors import UserError

# phonenumbers' own search takes milliseconds a page: expressions find candidates, and phonenumbers validates them
_BODY = r"""(?<![\w/=#%@$€£.,\\-])
    (?: \+[ ]?\(?[0-9] | \(\+?[0-9] | [0-9] )
    (?: (?: [ \u00a0./‐–-] | [ \u00a0]?\( | \)[ \u00a0./-]? | [ ][-–/][ ] | [ ]?\(0\)[ ]? )? [0-9] ){5,}+
    (?: ,?[ ]?(?:ext\.?|extension|x)[ ]?[0-9]{1,5} )?
    (?! [\w%=€£] | [-.,/:][0-9] | [ ]?[*+=×÷] | [ ]-[0-9] )"""
_CANDIDATE = re.compile(r"(?<![0-9][\s:])" + _BODY, re.VERBOSE | re.IGNORECASE)
# directly after another number: the digits before it are not part of this one
_AFTER_NUMBER = re.compile(r"(?<=[\s:])" + _BODY, re.VERBOSE | re.IGNORECASE)
_SAID = re.compile(
    r"\b(?:phone|telephone|tele?|tél|telefon|téléphone|call|fax|mobile|mobil|handy|cell|whatsapp|sms|text me|dial"
    r"|(?:my|your|his|her|our|their) (?:number|nr))\b[^0-9\n]{0,20}\Z",
    re.IGNORECASE,
)
_AMERICAN = re.compile(
    r"(?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}([-. ]))[2-9][0-9]{2}(?(1)\1|[-. ])[0-9]{4}(?: ?\D+[0-9]{1,5})?"
)
# beginnings of numbers outside America
_TRUNK = re.compile(r"(?:00[1-9]|\(0[0-9]{1,5}\)|0[0-9]{1,5}[ /.-]|0[1-9][0-9]{8,10}\Z).*")
_LOCAL = re.compile(r"[2-9][0-9]{2}[-.][0-9]{4}")
# American postal codes, dates
_NOT_A_PHONE = re.compile(
    r"[0-9]{5}-[0-9]{4}|(?:1[5-9]|20)[0-9]{2}([-./ ])[0-9]{1,2}\1[0-9]{1,2}(?![0-9]).*"
    r"|[0-9]{1,2}([-./ ])[0-9]{1,2}\2(?:19|20)[0-9]{2}(?:\D.*)?"
)
_MOST_DIGITS = 15  # ITU E.164, section 6.1


def phones(text: str, regions: tuple[str, ...]) -> Iterator[PiiSpan]:
    """Raises UserError if phonenumbers does not know a region."""
    end, found = 0, False
    while match := (found and _AFTER_NUMBER.match(text, end + 1)) or _CANDIDATE.search(text, end):
        end = match.end()
        written = match[0] if ")" in match[0] else match[0].lstrip("(")  # a bracket that closes after the number
        start = end - len(written)
        number = _number(written, bool(_SAID.search(text, max(start - 30, 0), start)), regions)
        if number:
            yield PiiSpan(start, end, number)
        found = number is not None


def _number(written: str, said: bool, regions: tuple[str, ...]) -> str | None:
    """The number in E.164 form, or None if it is none. said: the words before it call it a phone number."""
    digits = sum(map(str.isdigit, written))
    international = written.lstrip("(").startswith("+")
    if not international and _NOT_A_PHONE.fullmatch(written):
        return None
    if said and _LOCAL.fullmatch(written):
        return written
    if digits > _MOST_DIGITS + 5 or not (
        international or said or _AMERICAN.fullmatch(written) or _TRUNK.fullmatch(written)
    ):
        return None
    from stdnum import isbn

    return _valid(written, (None,) if international else regions) if said or not isbn.is_valid(written) else None


def _valid(written: str, regions: tuple[str | None, ...]) -> str | None:
    import phonenumbers

    for region in regions:
        if region and region not in phonenumbers.SUPPORTED_REGIONS:
            raise UserError(f"pii: regions: phonenumbers does not know {region!r}; write codes of ISO 3166 such as US")
        try:
            number = phonenumbers.parse(written, region)
        except phonenumbers.NumberParseException:
            continue
        if phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return None
