"""Personal data in documents, masked by placeholders: <EMAIL_1>, <PHONE_1>, <NAME_1>, …

What has a form (e-mail and IP addresses, phone, card and bank account numbers) is found in that form. Names and postal
addresses are found where their surroundings say that they are: after a title or "my name is", before a "Street". Others are
not found: a model for names would find more, and miss and invent some too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from data.corpus.document import Document
from data.corpus.pii import accounts, internet, people, phones, postal
from data.corpus.pii.masking import Finder, mask
from data.corpus.step import Outcome, Single
from data.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Pii(Single):
    """Masks, and notes in `marks["pii"]` how many places of each kind. Placeholders are numbered by document in the order of
    their first appearance, and equal values get equal ones: the text keeps who is who, and nothing of the value is left that
    could be guessed back. Masking again changes nothing.

    emails: also such as "jo (at) example.com". phones: as people write them in `regions` (ISO 3166), and any with a +.
    ips: version 4 and 6, public and private, but not loopback, netmasks or multicast. Four numbers with dots may also be a
        version: they stay after words such as "version" or "section", and are masked elsewhere.
    cards: 13 to 19 digits of an issuer with a right check digit. ibans: bank accounts, likewise.
    names: after titles and in greetings, signatures and introductions; in novels "Mr. Darcy" is masked too, so switch it off
        there (`sources`). addresses: street with number, and what follows of town and postal code; English, German, French.
    """

    only_kinds: ClassVar[tuple[str, ...]] = (
        "web",
        "text",
        "book",
        "scientific",
        "dialogue",
    )  # code is full of look-alikes
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
                raise UserError(f"pii: regions: {region!r} is no country code of ISO 3166; write US, GB, DE, …")

    def look(self, document: Document) -> Outcome:
        text, counts = mask(document.text, dict(self._finders()))
        return replace(document, text=text, marks={**document.marks, "pii": counts}) if counts else document

    def _finders(self) -> Iterator[tuple[str, Finder]]:
        """In order of precedence where two find the same place."""
        if self.emails:
            yield "email", internet.emails
        if self.ibans:
            yield "iban", accounts.ibans
        if self.cards:
            yield "card", accounts.cards
        if self.ips:
            yield "ip", internet.ips
        if self.phones:
            yield "phone", partial(phones.phones, regions=self.regions)
        if self.addresses:
            yield "address", postal.addresses
        if self.names:
            yield "name", people.names
