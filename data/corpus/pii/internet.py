"""E-mail and IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from data.corpus.pii.masking import Found

# RFC 5321, section 4.5.3.1 (lengths) and RFC 6531 (letters of any script). datatrove's expression knows ASCII alone, and takes
# time in the square of the length of "a.a.a.a…"; so search for the sign first, then look left and right of it.
_AT = re.compile(r"@|[\[({] ?at ?[\])}] ?", re.IGNORECASE)
_LOCAL = re.compile(r"[\w!#$%&*+=?^`{|}~-](?:[\w!#$%&'*+/=?^`{|}~.-]{0,62}[\w!#$%&*+=?^`{|}~-])?\Z")
_DOT = r"(?:\.|[ ]?[\[({]dot[\])}][ ]?)"
_DOMAIN = re.compile(
    rf"(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?{_DOT}){{1,8}}[^\W\d_][\w-]{{0,22}}[^\W_]|\[[0-9A-Fa-f:.]{{3,45}}\]",
    re.IGNORECASE,
)
_LOCAL_CHARACTERS = 64
_FILES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js")  # logo@2x.png

_IPV4 = re.compile(r"[0-9](?<![\w.-].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?![\w-]|\.[0-9])")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f.]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:.]{2,45}(?![\w:])")
_NOT_AN_ADDRESS = re.compile(
    r"\b(?:version|versions|ver|release|releases|build|firmware|revision|section|chapter|clause|figure|table)[.:]?\s*\Z|[§$€£]\s?\Z",
    re.IGNORECASE,
)


def emails(text: str) -> Iterator[Found]:
    for sign in _AT.finditer(text):
        spelled = sign[0] != "@" and text[sign.start() - 1 : sign.start()] == " "
        start = sign.start() - spelled
        local = _LOCAL.search(text[max(start - _LOCAL_CHARACTERS, 0) : start])
        domain = _DOMAIN.match(text, sign.end())
        if local and domain and not domain[0].lower().endswith(_FILES):
            name = re.sub(_DOT, ".", domain[0], flags=re.IGNORECASE)
            yield Found(start - len(local[0]), domain.end(), f"{local[0]}@{name}".casefold())


def ips(text: str) -> Iterator[Found]:
    for match in _IPV4.finditer(text):
        if not _NOT_AN_ADDRESS.search(text, max(match.start() - 12, 0), match.start()):
            yield from _checked(match.start(), match[0])
    if "::" in text or text.count(":") >= 7:
        for match in _IPV6.finditer(text):
            written = match[0].rstrip(".")
            # of short ones such as a::b or 1::2 more are not addresses than are
            if any(map(str.isdigit, written)) and sum(map(str.isalnum, written)) > 4:
                yield from _checked(match.start(), written)


def _checked(start: int, written: str) -> Iterator[Found]:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return
    reserved = address.version == 4 and address.is_reserved  # netmasks
    if not (address.is_loopback or address.is_unspecified or address.is_multicast or reserved):
        yield Found(start, start + len(written), address.compressed)
