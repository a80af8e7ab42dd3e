"""The rows of a pretraining phase whose data are a corpus: its tokens, in the mixture that the config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.tokens.mixture import Mixture
from data.tokens.rows import TokenRows
from data.tokens.store import TokenStore
from rlhf.config.schema import Corpus, Pretrain
from rlhf.corpus.files import TOKENS

HELD_OUT_WINDOWS = 1000  # of a corpus, that a phase is evaluated on where its config says nothing


def corpus_rows(
    artifact: Path, corpus: Corpus, phase: Pretrain, tokenizer: PreTrainedTokenizerBase, seed: int
) -> tuple[TokenRows, TokenRows]:
    """(to train on, held out). Raises UserError where the weights do not fit, or the tokens are another tokenizer's."""
    store = TokenStore.open(artifact / TOKENS)
    windows = store.windows(phase.max_length)
    mixture = Mixture(
        windows,
        weights=weights_of(corpus, phase, windows),
        temperature=phase.mixture.temperature,
        schedule=[(share, filled(weights, windows, phase)) for share, weights in phase.mixture.schedule],
        seed=seed,
    )
    steps = phase.steps or mixture.pass_rows // phase.batch_size * phase.epochs
    mixture = replace(mixture, total_rows=steps * phase.batch_size)
    train = TokenRows.of(store, tokenizer, mixture, phase.max_length)
    return train, train.held_out(phase.data.holdout or HELD_OUT_WINDOWS)


def weights_of(corpus: Corpus, phase: Pretrain, windows: Mapping[str, int]) -> dict[str, float] | None:
    """The static weights: the phase's, else the corpus's, filled up; None where neither names any."""
    if phase.mixture.schedule:
        return None
    own = {source.name: source.weight for source in corpus.sources if source.weight is not None}
    given = phase.mixture.weights or {name: weight for name, weight in own.items() if name in windows}
    return filled(given, windows, phase) if given else None


def filled(given: Mapping[str, float], windows: Mapping[str, int], phase: Pretrain) -> dict[str, float]:
    """A weight for every source: those that are not named share what is left up to 1, by their tokens ** (1 / temperature)."""
    others = {name: count ** (1 / phase.mixture.temperature) for name, count in windows.items() if name not in given}
    left, total = max(1 - sum(given.values()), 0.0), sum(others.values()) or 1
    return {name: given[name] if name in given else left * others[name] / total for name in windows}
