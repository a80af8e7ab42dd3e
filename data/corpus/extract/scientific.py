"""Scientific text: the markup of LaTeX and Markdown is kept, what authors of LaTeX wrote for themselves is not."""

from __future__ import annotations

import re
from dataclasses import replace

from data.corpus.extract.found import Extracted
from data.corpus.extract.text import NO_TEXT, extract_text
from data.corpus.formats import ending_of
from data.corpus.source import Record
from data.corpus.step import Dropped

IS_LATEX = re.compile(r"\\documentclass\b|\\begin\{document\}|\\(?:chapter|section)\*?\{")
# what comes first counts: a percent sign in what is kept begins no comment
COMMENTS = re.compile(
    r"""
    \\begin\{comment\} .*? (?:\\end\{comment\} | \Z)
  | (?P<kept>
        \\begin\{(?P<name>verbatim\*?|Verbatim|lstlisting|minted)\} .*? (?:\\end\{(?P=name)\} | \Z)
      | \\(?:verb\*?|lstinline)(?P<mark>[^\w\s*{\[]) [^\n]{0,1000}? (?P=mark)
      | \\(?:url|path|href)\{[^{}\n]*\}
      | \\.
    )
  | ^[ \t]*%[^\n]*(?:\n|\Z)                          # a line of its own goes altogether
  | (?<![A-Za-z\s])%[^\n]*\n[ \t]*(?=[^\s%])         # the next line goes on without a space, as in TeX
  | (?<![ \t])[ \t]*%[^\n]*
    """,
    re.X | re.S | re.M,
)


def extract_scientific(record: Record) -> list[Extracted] | Dropped:
    """LaTeX loses its comments and what stands before \\begin{document} and after \\end{document}; files that it inputs are
    documents of their own. The bibliography stays."""
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
