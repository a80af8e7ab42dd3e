"""Plain text, source code and scientific text, and the `Extracted` value that every extractor returns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data.corpus.formats import LANGUAGES, ending_of
from data.corpus.source import Quarantined, Record
from data.corpus.step import Dropped

LINE_ENDS = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
# all of Unicode's category Cc but tab and newline, and the byte order mark
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
NO_TEXT = Dropped("no text")
IS_LATEX = re.compile(r"\\documentclass\b|\\begin\{document\}|\\(?:chapter|section)\*?\{")
# A match of `kept` is left as it is: a percent sign inside it begins no comment.
COMMENTS = re.compile(
    r"""
    \\begin\{comment\} .*? (?:\\end\{comment\} | \Z)
  | (?P<kept>
        \\begin\{(?P<name>verbatim\*?|Verbatim|lstlisting|minted)\} .*? (?:\\end\{(?P=name)\} | \Z)
      | \\(?:verb\*?|lstinline)(?P<mark>[^\w\s*{\[]) [^\n]{0,1000}? (?P=mark)
      | \\(?:url|path|href)\{[^{}\n]*\}
      | \\.
    )
  | ^[ \t]*%[^\n]*(?:\n|\Z)                          # a comment line is removed with its line end
  | (?<![A-Za-z\s])%[^\n]*\n[ \t]*(?=[^\s%])         # TeX joins the next line without a space
  | (?<![ \t])[ \t]*%[^\n]*
    """,
    re.X | re.S | re.M,
)


@dataclass(frozen=True)
class Extracted:
    """The text of one document."""

    text: str
    language: str = ""  # as the record names it
    marks: Mapping[str, Any] = field(default_factory=dict)


def refused(record: Record, reason: str) -> Quarantined:
    return Quarantined(record.unit.source.name, record.part.name, record.place, reason)


def clean_text(text: str) -> str:
    """Line ends become \\n, control characters go, Unicode is composed (NFC), empty lines at both ends go."""
    return unicodedata.normalize("NFC", CONTROLS.sub("", LINE_ENDS.sub("\n", text))).strip("\n")


def extract_text(record: Record) -> list[Extracted] | Dropped:
    text = clean_text(record.content)
    return [Extracted(text, record.language)] if text.strip() else NO_TEXT


def extract_code(record: Record) -> list[Extracted] | Dropped:
    """Source code, unchanged. marks["code"]: the programming language, by the file's ending or by the row's column
    `language`."""
    text = record.content.removeprefix("\ufeff")
    if not text.strip():
        return NO_TEXT
    language = LANGUAGES.get(ending_of(record.part.name)) or record.language.lower()
    return [Extracted(text, marks={"code": language} if language else {})]


def extract_scientific(record: Record) -> list[Extracted] | Dropped:
    """Keeps the markup of LaTeX and Markdown. Removes LaTeX comments, the preamble and all after \\end{document}. Does
    not follow \\input: those files are documents of their own. Keeps the bibliography."""
    found = extract_text(record)
    if isinstance(found, Dropped):
        return found
    ending, text = ending_of(record.part.name), found[0].text
    if ending != ".tex" and (ending in (".md", ".rst") or not IS_LATEX.search(text)):
        return found
    text = COMMENTS.sub(lambda match: match["kept"] or "", text)
    _, begin, body = text.partition(r"\begin{document}")
    text = (body.partition(r"\end{document}")[0] if begin else text).strip("\n")
    return [replace(found[0], text=text)] if text.strip() else NO_TEXT
