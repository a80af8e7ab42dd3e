"""Quality rules that need no training: datatrove's Gopher, C4 and FineWeb filters, with its names and defaults.

The rules were made for English web pages. Rules about lines (C4, FineWeb) apply to web pages only, unless `kinds` says
otherwise, because plain text may break lines anywhere. For languages without spaces between words, where each letter is
a word (`words.py`), set `min_avg_word_length` to null and raise the n of the n-grams. For languages other than English
give `stop_words`, or set `min_stop_words` to null.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from data.corpus.document import Document
from data.corpus.step import Dropped, Outcome, Single, Step
from data.corpus.words import datatrove_words

if TYPE_CHECKING:
    from datatrove.pipeline.filters.base_filter import BaseFilter

REASONS = {
    "gopher_short_doc": "too few words",
    "gopher_long_doc": "too many words",
    "gopher_below_avg_threshold": "words too short",
    "gopher_above_avg_threshold": "words too long",
    "gopher_too_many_hashes": "too many # signs",
    "gopher_too_many_ellipsis": "too many ellipses",
    "gopher_too_many_bullets": "too many lines with a bullet",
    "gopher_too_many_end_ellipsis": "too many lines that end in an ellipsis",
    "gopher_below_alpha_threshold": "too few words with letters",
    "gopher_enough_stop_words": "too few stop words",
    "empty": "no text",
    "dup_para_frac": "repeated paragraphs",
    "dup_para_char_frac": "repeated paragraphs, by their length",
    "dup_line_frac": "repeated lines",
    "dup_line_char_frac": "repeated lines, by their length",
    **{f"top_{n}_gram": f"one phrase of {n} words again and again" for n in range(2, 11)},
    **{f"duplicated_{n}_n_grams": f"repeated phrases of {n} words" for n in range(2, 11)},
    "lorem_ipsum": "lorem ipsum",
    "curly_bracket": "curly bracket",
    "too_few_sentences": "too few sentences",
    "< 3 paragraphs": "too few long lines",
    "line_punct_ratio": "too few lines that end in punctuation",
    "short_line_ratio": "too many short lines",
    "char_dup_ratio": "repeated lines, by their length",
    "list_ratio": "too many lines for its words",
}


@dataclass(frozen=True, kw_only=True)
class _Rule(Single):
    """A datatrove filter. The fields that `Step` does not have are the filter's parameters."""

    filter_name: ClassVar[str]  # of datatrove.pipeline.filters
    takes_words: ClassVar[bool] = True  # whether the filter counts words
    only_kinds: ClassVar[tuple[str, ...]] = ("web", "text")

    @cached_property
    def rule(self) -> BaseFilter:
        from datatrove.pipeline import filters

        general = {field.name for field in fields(Step)}
        parameters = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in general}
        words = {"language": datatrove_words()} if self.takes_words else {}
        return getattr(filters, self.filter_name)(**parameters, **words)

    def look(self, document: Document) -> Outcome:
        from datatrove.data import Document as Page
        from datatrove.pipeline.filters.base_filter import get_filter_result

        page = Page(text=document.text, id=document.id)
        # an empty text would divide by zero
        kept, reason = get_filter_result(self.rule.filter(page)) if page.text.strip() else (False, "empty")
        if not kept:
            return Dropped(REASONS.get(reason, reason))
        if not page.text:
            return Dropped(REASONS["empty"])
        return document if page.text == document.text else replace(document, text=page.text)


@dataclass(frozen=True, kw_only=True)
class GopherQuality(_Rule):
    """Rae et al. 2021 (Gopher, arXiv:2112.11446), appendix A1, "quality filtering". null switches a rule off.

    doc_words, avg_word_length (characters): of words that are not punctuation. max_symbol_word_ratio: # signs to words,
    and ellipses to words. max_bullet_lines_ratio, max_ellipsis_lines_ratio: shares of the lines.
    max_non_alpha_words_ratio: despite datatrove's name, the least share of words with a letter. min_stop_words: the
    least number of different `stop_words` (null: English).
    """

    min_doc_words: int | None = 50
    max_doc_words: int | None = 100_000
    min_avg_word_length: float | None = 3
    max_avg_word_length: float | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    max_non_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] | None = None

    filter_name: ClassVar[str] = "GopherQualityFilter"


@dataclass(frozen=True, kw_only=True)
class GopherRepetition(_Rule):
    """Rae et al. 2021, appendix A1, table A1. null switches a rule off.

    dup_…_frac: most repeated lines or paragraphs, as a share of all. dup_…_char_frac: most characters in them, as a
    share of all. top_n_grams: (n, most characters in the most frequent n-gram, as a share of all). dup_n_grams: the
    same for all n-grams that occur more than once.
    """

    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    filter_name: ClassVar[str] = "GopherRepetitionFilter"


@dataclass(frozen=True, kw_only=True)
class C4(_Rule):
    """Raffel et al. 2020 (T5, JMLR 21/140), section 2.2. Changes the text: removes lines that break a rule, and
    citation marks. -1 switches a number off. For the paper's list of bad words see the step `WordList`.

    split_paragraph: apply the line rules to lines (as the paper), else to sentences. Line rules:
    filter_no_terminal_punct, min_words_per_line, max_word_length (characters), filter_javascript, filter_policy
    ("privacy policy", "use cookies", …). Document rules: filter_lorem_ipsum, filter_curly_bracket, min_num_sentences
    (in the lines that are left).
    """

    only_kinds: ClassVar[tuple[str, ...]] = ("web",)
    split_paragraph: bool = True
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    filter_name: ClassVar[str] = "C4QualityFilter"


@dataclass(frozen=True, kw_only=True)
class C4Paragraphs(_Rule):
    """Xue et al. 2021 (mC4, arXiv:2010.11934), section 3.1: keeps documents with at least three lines of 200 characters
    or more. Replaces `C4` for languages without terminal punctuation."""

    filter_name: ClassVar[str] = "C4ParagraphFilter"
    only_kinds: ClassVar[tuple[str, ...]] = ("web",)
    takes_words: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class FineWeb(_Rule):
    """Penedo et al. 2024 (FineWeb, arXiv:2406.17557), section 3.6.

    line_punct_thr: least share of lines that end in a stop character (stop_chars; null: terminal punctuation of all
    scripts). line_punct_exclude_zero: keep documents whose lines have none. short_line_thr: greatest share of lines of
    at most short_line_length characters. char_duplicates_ratio: greatest share of characters in repeated lines.
    new_line_ratio: greatest ratio of line breaks to words.
    """

    filter_name: ClassVar[str] = "FineWebQualityFilter"
    only_kinds: ClassVar[tuple[str, ...]] = ("web",)
    line_punct_thr: float = 0.12
    line_punct_exclude_zero: bool = False
    stop_chars: tuple[str, ...] | None = None
    short_line_thr: float = 0.67
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    new_line_ratio: float = 0.3
