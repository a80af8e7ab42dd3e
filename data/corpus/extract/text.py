"""Plain text: newlines, byte order marks and control characters made uniform."""

from __future__ import annotations

import re
import unicodedata

from data.corpus.extract.found import Extracted
from data.corpus.source import Record
from data.corpus.step import Dropped

LINE_ENDS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# all of Unicode's category Cc but tab and newline, and the byte order mark, which is no space within a text
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
NO_TEXT = Dropped("no text")


def clean_text(text: str) -> str:
    """Newlines as \\n, no control characters, Unicode's composed form (NFC), no empty lines at either end."""
    return unicodedata.normalize("NFC", CONTROLS.sub("", LINE_ENDS.sub("\n", text))).strip("\n")


def extract_text(record: Record) -> list[Extracted] | Dropped:
    text = clean_text(record.content)
    return [Extracted(text, record.language)] if text.strip() else NO_TEXT
