"""Numbers of cards and bank accounts, which prove themselves by check digits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data.corpus.pii.masking import Found

_CARD = re.compile(
    r"""(?<![\w.,-])(?:
        [0-9]{13,19}
      | [0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?
      | [0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5}
    )(?![\w-]|[.,][0-9])""",
    re.VERBOSE,
)
# ISO/IEC 7812: first digits and lengths of issuers
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


def cards(text: str) -> Iterator[Found]:
    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        if _ISSUER.fullmatch(digits):
            from stdnum import luhn

            if luhn.is_valid(digits):
                yield Found(match.start(), match.end(), digits)


def ibans(text: str) -> Iterator[Found]:
    for match in _IBAN.finditer(text):
        from stdnum import iban

        written = match[0]
        while written and not iban.is_valid(written):
            written = written.rpartition(" ")[0]  # a word in capitals that follows
        if written:
            yield Found(match.start(), match.start() + len(written), iban.compact(written))
