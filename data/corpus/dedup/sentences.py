"""Removes spans of sentences that repeat earlier ones: notices, menus, disclaimers, quoted passages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from data.corpus.dedup.droplist import FOUND, listed
from data.corpus.dedup.repeats import FIRST, Hashed, digest, find_repeats
from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome, Placed, Preparation, Stage, Step
from data.corpus.words import WORDS, simplified
from data.corpus.work import Work
from data.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SentenceDuplicates(Preparation):
    """Removes every span of `sentences` consecutive sentences that occurred before, in the order of units, rows and
    sentences (Raffel et al. 2020, JMLR 21:140, section 2.2). Overlapping spans add up, so longer passages are removed
    whole. Ignores letter case, accents, punctuation and white space. The rest keeps its order and its paragraphs.
    `marks["repeated_sentences"]` counts the removed sentences.

    sentences: of a span, at least 1.
    least_words: drops a document that lost a span and has fewer words left, unless it has the first occurrence of a
        span that another document lost.

    A first occurrence that overlaps repeats of other spans loses the shared sentences, so a span may remain nowhere in
    the corpus as a whole. Each sentence that is removed with a span remains at an earlier place.

    Made for prose: by default not applied to code and dialogues. datatrove's steps for this are not used: they keep the
    occurrence of the least row of any file, and count at most 65,536 sentences in a document.

    In memory: see data/corpus/dedup/repeats.py. On disk, until it is prepared: 24 bytes a sentence.
    """

    only_kinds: ClassVar[tuple[str, ...]] = ("web", "text", "book", "scientific")
    sentences: int = 3
    least_words: int = 20

    def __post_init__(self) -> None:
        if self.sentences < 1:
            raise UserError(f"SentenceDuplicates: sentences is {self.sentences}; give 1 or more")

    def prepare(self, stage: Stage, work: Work) -> Step:
        parts = find_repeats(work, "sentences", self, stage, self.hashes, overlap=self.sentences)
        kinds = self.only_kinds if self.kinds is None else self.kinds
        found = work.directory / FOUND
        return WithoutRepeats(preparation=self, directory=found, parts=parts, kinds=kinds, sources=self.sources)

    def hashes(self, text: str) -> Iterator[Hashed]:
        spans = enumerate(_spans(text, self.sentences))
        return ((place, digest(span.encode())) for place, span in spans if span.strip())


def _spans(text: str, sentences: int) -> Iterator[str]:
    """Each span of `sentences` sentences, simplified."""
    simple = [simplified(sentence) for sentence in WORDS.sent_tokenize(text)]
    for start in range(len(simple) - sentences + 1):
        yield "\n".join(simple[start : start + sentences])


@dataclass(frozen=True, kw_only=True)
class WithoutRepeats(Step):
    """The prepared SentenceDuplicates."""

    preparation: SentenceDuplicates
    directory: Path
    parts: int

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        found = (listed(directory, self.parts, placed) for directory in (self.directory, self.directory / FIRST))
        return [
            self._without(each.document, repeats["place"].tolist(), len(first) > 0) if len(repeats) else each.document
            for each, repeats, first in zip(placed, *found, strict=True)
        ]

    def _without(self, document: Document, places: Sequence[int], is_first: bool) -> Outcome:
        """is_first: the document has the first occurrence of a span that another document loses."""
        span = self.preparation.sentences
        repeated = {sentence for place in places for sentence in range(place, place + span)}
        text = without_sentences(document.text, WORDS.span_tokenize(document.text), repeated)
        if not text or (not is_first and len(WORDS.word_tokenize(text)) < self.preparation.least_words):
            return Dropped("nothing left but repeated sentences")
        return replace(document, text=text, marks={**document.marks, "repeated_sentences": len(repeated)})


def without_sentences(text: str, spans: Sequence[tuple[int, int]], repeated: set[int]) -> str:
    """The text without the sentences of these numbers. Of the white spaces around a removed part, keeps the one with
    most line ends."""
    left = []
    gap = ""
    begin = 0
    for number, (start, stop) in enumerate(spans):
        gap = max(gap, text[begin:start], key=lambda space: (space.count("\n"), len(space)))
        begin = stop
        if number not in repeated:
            left += [gap if left else "", text[start:stop]]
            gap = ""
    return "".join(left)
