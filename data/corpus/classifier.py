"""A quality classifier, trained on examples of good and bad text.

Logistic regression on hashed words, as GPT-3's filter (Brown et al. 2020, appendix A). Such a classifier keeps text
that is like its good examples: good text by other groups of people, or shorter text, may score low. Therefore its
figures tell the share that it keeps of each text length and of each named group.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from data.corpus.document import Document, draw
from data.corpus.step import Dropped, Outcome, Placed, Preparation, Stage, Step
from data.corpus.words import WORDS
from data.corpus.work import Work
from data.errors import UserError
from data.messages import text_of
from data.sources import Rows, open_rows

if TYPE_CHECKING:
    import numpy as np
    from sklearn.feature_extraction.text import HashingVectorizer

FEATURES = 2**18
LOOKED_AT_CHARACTERS = 10_000  # the classifier reads the beginning of a text
MOST_EXAMPLES = 200_000  # of each side and group: their word counts must fit into memory
FEWEST_EXAMPLES = 10
HELD_OUT_SHARE = 0.1
BATCH_TEXTS = 256
LENGTHS_WORDS = (0, 20, 50, 100, 200)


@dataclass(frozen=True, kw_only=True)
class Classifier(Preparation):
    """Sets `marks["quality"]` of every document, from 0 to 1, and drops documents of low quality.

    good, bad: paths of examples, as `data.sources.open_rows` takes them; column: the column that holds their text.
    at_least: the score that a document needs; null: keep all.
    pareto: used instead of at_least. Keeps a document if a draw from the Pareto (Lomax) distribution with this alpha is
        above 1 - score (Brown et al. 2020, appendix A, with alpha 9), so that some documents of low score are kept too.
    groups: by name, paths of texts, such as a dialect or short messages. The figures tell the share kept of each group.
    """

    needs_corpus: ClassVar[bool] = False
    only_kinds: ClassVar[tuple[str, ...]] = ("web", "text")
    good: tuple[str, ...]
    bad: tuple[str, ...]
    column: str = "text"
    at_least: float | None = 0.5
    pareto: float | None = None
    groups: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.at_least is not None and not 0 <= self.at_least <= 1:
            raise UserError(f"classifier: at_least is {self.at_least}; give a score from 0 to 1, or null to keep all")
        if self.pareto is not None and not self.pareto > 0:
            raise UserError(f"classifier: pareto is {self.pareto}; give an alpha above 0, such as 9")

    def prepare(self, stage: Stage, work: Work) -> Step:
        """Raises UserError if examples are missing, broken or too few."""
        training = TrainClassifier(self, str(work.directory), work.seed)
        (figures,) = work.map("train", training, [None])
        return training.step(figures)


@dataclass(frozen=True, kw_only=True)
class Quality(Step):
    """The trained classifier. figures: its results on held-out examples."""

    weights: str  # path of the safetensors file of its coefficients
    seed: int
    at_least: float | None
    pareto: float | None
    figures: Mapping[str, Any]

    def apply(self, placed: Sequence[Placed]) -> list[Outcome]:
        scores = score([each.document.text for each in placed], *_load(self.weights))
        return [self._outcome(each.document, value) for each, value in zip(placed, scores.tolist(), strict=True)]

    def _outcome(self, document: Document, value: float) -> Outcome:
        chance = draw(document, f"quality {self.seed}") if self.pareto else 0.0
        if chance >= self.kept_share(value):
            return Dropped("low quality")
        return replace(document, marks={**document.marks, "quality": value})

    def kept_share(self, value: float) -> float:
        """The kept share of documents with this score: P(Pareto(alpha) > 1 - score), or 0 or 1 with `at_least`."""
        if self.pareto:
            return (2 - value) ** -self.pareto
        return float(self.at_least is None or value >= self.at_least)


@dataclass(frozen=True)
class TrainClassifier:
    """Piece of work: writes the weights and the figures, and returns the figures."""

    settings: Classifier
    directory: str
    seed: int

    @property
    def weights(self) -> Path:
        return Path(self.directory) / "classifier.safetensors"

    def step(self, figures: Mapping[str, Any]) -> Quality:
        settings = self.settings
        return Quality(
            weights=str(self.weights),
            seed=self.seed,
            at_least=None if settings.pareto else settings.at_least,
            pareto=settings.pareto,
            figures=figures,
            kinds=settings.only_kinds if settings.kinds is None else settings.kinds,
            sources=settings.sources,
        )

    def __call__(self, _: None) -> dict[str, Any]:
        import numpy as np
        from safetensors.numpy import save_file
        from sklearn.linear_model import LogisticRegression

        good, bad = (ExampleTexts(side, self.settings.column) for side in (self.settings.good, self.settings.bad))
        for name, examples in (("good", good), ("bad", bad)):
            if len(examples.chosen) < FEWEST_EXAMPLES:
                raise UserError(
                    f"classifier: {name}: {len(examples.chosen)} different texts in {examples.rows.name}; "
                    f"a classifier needs at least {FEWEST_EXAMPLES}, better thousands"
                )
        matrix = _vectorizer().transform(text for examples in (good, bad) for text in examples.read(examples.learned))
        labels = np.repeat([1, 0], [len(good.learned), len(bad.learned)])
        # balanced: the ratio of good to bad examples says nothing about the corpus
        model = LogisticRegression(class_weight="balanced", max_iter=1000, random_state=self.seed)
        used = np.unique(matrix.indices)  # other coefficients stay 0; to fit them takes most of the time
        model.fit(matrix[:, used], labels)
        coefficients, intercept = np.zeros(FEATURES, np.float32), model.intercept_.astype(np.float32)
        coefficients[used] = model.coef_[0]
        save_file({"coefficients": coefficients, "intercept": intercept}, self.weights)
        _load.cache_clear()  # this process may have trained in the same directory before
        figures = self._figures(good, bad)
        (Path(self.directory) / "classifier.json").write_text(json.dumps(figures, indent=1))
        return figures

    def _figures(self, good: ExampleTexts, bad: ExampleTexts) -> dict[str, Any]:
        from sklearn.metrics import roc_auc_score

        step = self.step({})
        of_good, of_bad = (list(_scored(side.read(side.held_out), step)) for side in (good, bad))
        values = [value for _, value in of_good + of_bad]
        truth = [1] * len(of_good) + [0] * len(of_bad)
        right = [(value >= 0.5) == bool(label) for value, label in zip(values, truth, strict=True)]
        groups = {
            name: _fate(_scored(group.read(group.chosen), step), step)
            for name, paths in self.settings.groups.items()
            for group in [ExampleTexts((paths,) if isinstance(paths, str) else paths, self.settings.column)]
        }
        edges = zip(LENGTHS_WORDS, (*LENGTHS_WORDS[1:], None), strict=True)
        return {
            "learned from": {"good": len(good.learned), "bad": len(bad.learned)},
            "on held-out examples": {
                "accuracy": sum(right) / len(right),
                "area under ROC": float(roc_auc_score(truth, values)),
                "good": _fate(of_good, step),
                "bad": _fate(of_bad, step),
            },
            "good by length in words": {
                f"{low}-{high - 1}" if high else f"{low}+": _fate(_between(of_good, low, high), step)
                for low, high in edges
            },
            "good cut to its first words": {
                str(words): _fate(_scored(_cut(good.read(good.held_out), words), step), step)
                for words in LENGTHS_WORDS[1:]
            },
            "groups": groups,
        }


class ExampleTexts:
    """The different texts of some rows, in the order of their hashes, split into `learned` and `held_out`. Equal texts
    count once, so that none is in both."""

    def __init__(self, paths: Sequence[str], column: str):
        self.rows: Rows = open_rows(list(paths))
        self.rows.require(column)
        self._column = column
        by_digest: dict[bytes, int] = {}
        for index in range(len(self.rows)):
            text = self._text(index)
            if text.strip():
                by_digest.setdefault(blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest(), index)
        self.chosen = [index for _, index in sorted(by_digest.items())[:MOST_EXAMPLES]]
        count = max(1, round(len(self.chosen) * HELD_OUT_SHARE))
        self.held_out, self.learned = self.chosen[:count], self.chosen[count:]

    def read(self, indices: Iterable[int]) -> Iterator[str]:
        return (self._text(index) for index in sorted(indices))

    def _text(self, index: int) -> str:
        return text_of(self.rows[index], self._column, self.rows.origin(index))[:LOOKED_AT_CHARACTERS]


def score(texts: Iterable[str], coefficients: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """(N,) float64: the probability that each text is good. Rounded to four digits, so that all machines agree."""
    from scipy.special import expit

    return expit(_vectorizer().transform(texts) @ coefficients + intercept[0]).round(4)


@cache
def _load(path: str) -> tuple[np.ndarray, np.ndarray]:
    """(FEATURES,) and (1,) float32."""
    from safetensors.numpy import load_file

    weights = load_file(path)
    return weights["coefficients"], weights["intercept"]


@cache
def _vectorizer() -> HashingVectorizer:
    """Word counts of a text, scaled to Euclidean length 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=FEATURES, analyzer=lambda text: WORDS.word_tokenize(text[:LOOKED_AT_CHARACTERS].lower())
    )


def _scored(texts: Iterable[str], step: Quality) -> Iterator[tuple[int, float]]:
    """(number of words, score) of each text."""
    texts = iter(texts)
    while batch := list(islice(texts, BATCH_TEXTS)):
        values = score(batch, *_load(step.weights)).tolist()
        yield from ((len(WORDS.word_tokenize(text)), value) for text, value in zip(batch, values, strict=True))


def _fate(scored: Iterable[tuple[int, float]], step: Quality) -> dict[str, Any]:
    values = [value for _, value in scored]
    if not values:
        return {"examples": 0}
    kept = sum(map(step.kept_share, values)) / len(values)
    return {"examples": len(values), "kept": kept, "mean score": sum(values) / len(values)}


def _between(scored: Iterable[tuple[int, float]], low: int, high: int | None) -> Iterator[tuple[int, float]]:
    return ((words, value) for words, value in scored if low <= words and (high is None or words < high))


def _cut(texts: Iterable[str], words: int) -> Iterator[str]:
    return (" ".join(text.split()[:words]) for text in texts)
