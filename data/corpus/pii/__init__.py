"""Masks personal data in documents by placeholders: <EMAIL_1>, <PHONE_1>, <NAME_1>, …

E-mail and IP addresses, phone, card and bank account numbers are found by their form. Names and postal addresses are
found by the words around them, such as a title, "my name is" or "Street"; others are not found. A model for names would
find more, but would also miss some and invent some.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from data.corpus.document import Document
from data.corpus.pii import identifiers, people, phones, postal
from data.corpus.pii.placeholders import Finder, mask
from data.corpus.step import Outcome, Single
from data.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Pii(Single):
    """Masks personal data, and counts the masked places by kind in `marks["pii"]`. Placeholders are numbered within the
    document in the order of their first appearance. Equal values get equal placeholders, so the text still tells people
    apart, but reveals nothing of the values. Masking again changes nothing.

    emails: also in forms such as "jo (at) example.com". phones: in the forms of `regions` (ISO 3166), and any with a +.
    ips: version 4 and 6, public and private, but not loopback, netmasks or multicast. Four numbers with dots may also
        be a version: they are kept after words such as "version" or "section", and masked elsewhere.
    cards: 13 to 19 digits with an issuer's prefix and a valid check digit. ibans: with valid check digits.
    names: after titles, and in greetings, signatures and introductions. Masks "Mr. Darcy" in novels too: switch it off
        there (`sources`). addresses: street, number, and the town and postal code after them; English, German, French.
    """

    # not code, which is full of look-alikes
    only_kinds: ClassVar[tuple[str, ...]] = ("web", "text", "book", "scientific", "dialogue")
    emails: bool = True
    phones: bool = True
    ips: bool = True
    cards: bool = True
    ibans: bool = True
    names: bool = True
    addresses: bool = True
    regions: tuple[str, ...] = ("US", "GB", "DE", "FR")

    def __post_init__(self) -> None:
        for region in self.regions:
            if not re.fullmatch("[A-Z]{2}", region):
                raise UserError(f"pii: regions: {region!r} is not an ISO 3166 country code; write US, GB, DE, …")

    def look(self, document: Document) -> Outcome:
        text, counts = mask(document.text, dict(self._finders()))
        return replace(document, text=text, marks={**document.marks, "pii": counts}) if counts else document

    def _finders(self) -> Iterator[tuple[str, Finder]]:
        """(kind, finder), the first has precedence for places that overlap."""
        if self.emails:
            yield "email", identifiers.emails
        if self.ibans:
            yield "iban", identifiers.ibans
        if self.cards:
            yield "card", identifiers.cards
        if self.ips:
            yield "ip", identifiers.ips
        if self.phones:
            yield "phone", partial(phones.phones, regions=self.regions)
        if self.addresses:
            yield "address", postal.addresses
        if self.names:
            yield "name", people.names
