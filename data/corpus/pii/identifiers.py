"""Personal data that has a fixed form: e-mail and IP addresses, and card and bank account numbers with check digits."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from data.corpus.pii.placeholders import PiiSpan

# RFC 5321, section 4.5.3.1 (lengths) and RFC 6531 (letters of any script). datatrove's expression knows only ASCII, and
# takes quadratic time for "a.a.a.a…". So `emails` finds each @ first, and then looks left and right of it.
_AT = re.compile(r"@|[\[({] ?at ?[\])}] ?", re.IGNORECASE)
_LOCAL = re.compile(r"[\w!#$%&*+=?^`{|}~-](?:[\w!#$%&'*+/=?^`{|}~.-]{0,62}[\w!#$%&*+=?^`{|}~-])?\Z")
_DOT = r"(?:\.|[ ]?[\[({]dot[\])}][ ]?)"
_DOMAIN = re.compile(
    rf"(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?{_DOT}){{1,8}}[^\W\d_][\w-]{{0,22}}[^\W_]|\[[0-9A-Fa-f:.]{{3,45}}\]",
    re.IGNORECASE,
)
_LOCAL_CHARACTERS = 64
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js")  # such as logo@2x.png

_IPV4 = re.compile(r"[0-9](?<![\w.-].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f.]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,45}(?![\w:])")
_NOT_AN_ADDRESS = re.compile(
    r"\b(?:version|versions|ver|release|releases|build|firmware|revision|section|chapter|clause|figure|table)[.:]?\s*\Z|[§$€£]\s?\Z",
    re.IGNORECASE,
)

_CARD = re.compile(
    r"""(?<![\w.,-])(?:
        [0-9]{13,19}
      | [0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?
      | [0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}
    )(?![\w-]|[.,][0-9])""",
    re.VERBOSE,
)
# ISO/IEC 7812: prefixes and lengths by issuer
_ISSUER = re.compile(
    r"""4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})                                        # Visa
      | (?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}  # Mastercard
      | 3[47][0-9]{13}                                                            # American Express
      | (?:30[0-5]|36[0-9]|3[89][0-9])[0-9]{11}                                   # Diners
      | (?:6011|64[4-9][0-9]|65[0-9]{2}|62[0-9]{2}|352[89]|35[3-8][0-9])[0-9]{12,15}  # Discover, UnionPay, JCB
      | (?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{9,15}                     # Maestro
    """,
    re.VERBOSE,
)
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")


def emails(text: str) -> Iterator[PiiSpan]:
    for sign in _AT.finditer(text):
        spelled = sign[0] != "@" and text[sign.start() - 1 : sign.start()] == " "
        start = sign.start() - spelled
        local = _LOCAL.search(text[max(start - _LOCAL_CHARACTERS, 0) : start])
        domain = _DOMAIN.match(text, sign.end())
        if local and domain and not domain[0].lower().endswith(_FILES):
            name = re.sub(_DOT, ".", domain[0], flags=re.IGNORECASE)
            yield PiiSpan(start - len(local[0]), domain.end(), f"{local[0]}@{name}".casefold())


def ips(text: str) -> Iterator[PiiSpan]:
    for match in _IPV4.finditer(text):
        if not _NOT_AN_ADDRESS.search(text, max(match.start() - 12, 0), match.start()):
            yield from _checked(match.start(), match[0])
    if "::" in text or text.count(":") >= 7:
        for match in _IPV6.finditer(text):
            written = match[0].rstrip(".")
            # most short ones, such as a::b or 1::2, are not addresses
            if any(map(str.isdigit, written)) and sum(map(str.isalnum, written)) > 4:
                yield from _checked(match.start(), written)


def _checked(start: int, written: str) -> Iterator[PiiSpan]:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return
    reserved = address.version == 4 and address.is_reserved  # netmasks
    if not (address.is_loopback or address.is_unspecified or address.is_multicast or reserved):
        yield PiiSpan(start, start + len(written), address.compressed)


def cards(text: str) -> Iterator[PiiSpan]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        if _ISSUER.fullmatch(digits):
            from stdnum import luhn

            if luhn.is_valid(digits):
                yield PiiSpan(match.start(), match.end(), digits)


def ibans(text: str) -> Iterator[PiiSpan]:
    for match in _IBAN.finditer(text):
        from stdnum import iban

        written = match[0]
        while written and not iban.is_valid(written):
            written = written.rpartition(" ")[0]  # drops a word in capitals after the number
        if written:
            yield PiiSpan(match.start(), match.start() + len(written), iban.compact(written))
