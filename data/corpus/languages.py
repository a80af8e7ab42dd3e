"""Identifies the language of documents, and drops languages that the corpus does not want.

Short texts are hard. For sentences in ten languages, py3langid is right for 81 % of their first ten characters, 89 % of
their first twenty, and all of their first forty (tests/unit/test_corpus_language.py). Its wrong guesses there score
below 0.5, as do half of the right ones at ten characters. `at_least` calls such guesses unclear.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal

from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome, Single
from data.errors import UserError

CODE = re.compile("[a-z]{2,3}")
UNDETERMINED = "und"  # ISO 639-2's code for this
LOOKED_AT_CHARACTERS = 2000  # from the beginning; more takes longer and was right no more often


def language_code(said: str) -> str:
    """The code in a row's language field: "en" for "EN" and "en-US"; "" if it has none ("English")."""
    code = re.split("[-_]", said.strip().lower(), maxsplit=1)[0]
    return code if CODE.fullmatch(code) and code != UNDETERMINED else ""


@dataclass(frozen=True, kw_only=True)
class Language(Single):
    """Sets `Document.language` if the source gave none, and `marks["language_score"]`; drops other languages.

    allowed: ISO 639 codes, with two letters if the language has such a code, as en; empty: all.
    at_least: below this score (0 to 1) the language is unclear. Such a document is dropped if `allowed` names
        languages, and otherwise left without a language.
    identifier: langid (py3langid, 140 languages, includes its model), or fasttext with lid.176.bin (Joulin et al. 2017;
        176 languages, several times faster), whose path is `model`. Nothing is downloaded.
    """

    only_kinds: ClassVar[tuple[str, ...]] = ("web", "text", "book", "scientific", "dialogue")  # not code
    allowed: tuple[str, ...] = ()
    at_least: float = 0.5
    identifier: Literal["langid", "fasttext"] = "langid"
    model: str | None = None

    def __post_init__(self) -> None:
        for code in self.allowed:
            if not CODE.fullmatch(code):
                raise UserError(f"language: allowed: {code!r} is not an ISO 639 code; write en, de, zh, …")
        if (self.identifier == "fasttext") != (self.model is not None):
            raise UserError(
                "language: model is the path of lid.176.bin; give it with identifier: fasttext, and only then"
            )

    def look(self, document: Document) -> Outcome:
        if not document.language:  # else `extract` made it a code
            language, score = self._identify(document.text[:LOOKED_AT_CHARACTERS])
            known = language if score >= self.at_least else ""
            document = replace(document, language=known, marks={**document.marks, "language_score": round(score, 3)})
        if self.allowed and document.language not in self.allowed:
            wanted = ", ".join(self.allowed)
            return Dropped(f"language {document.language or 'unclear'}, wanted {wanted}")
        return document

    def _identify(self, text: str) -> tuple[str, float]:
        """The most likely language and its score, 0 to 1."""
        labels, identify = _langid() if self.model is None else _fasttext(self.model)
        unknown = [code for code in self.allowed if code not in labels]
        if unknown:
            raise UserError(
                f"language: allowed: {self.identifier} does not know {unknown[0]!r}; it knows {', '.join(labels)}"
            )
        return identify(text)


Identifier = tuple[list[str], Callable[[str], tuple[str, float]]]


@cache
def _langid() -> Identifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return sorted(identifier.labels), identifier.classify


@cache
def _fasttext(path: str) -> Identifier:
    try:
        from fasttext.FastText import _FastText  # `load_model` prints a warning
    except ImportError as error:
        raise UserError(
            "language: identifier: fasttext is not installed; run pip install fasttext-numpy2-wheel, or use langid"
        ) from error
    if not Path(path).expanduser().is_file():
        raise UserError(
            f"language: model: {path} is not a file; fetch lid.176.bin from "
            "https://dl.fbaipublicfiles.com/fasttext/supervised-models/lid.176.bin, or use identifier: langid"
        )
    model = _FastText(str(Path(path).expanduser()))

    def identify(text: str) -> tuple[str, float]:
        (label,), (score,) = model.predict(text.replace("\n", " "), k=1)
        return label.removeprefix("__label__"), float(score)

    return sorted(label.removeprefix("__label__") for label in model.get_labels()), identify
