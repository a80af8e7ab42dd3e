"""The rows of a pretraining phase whose data are a corpus: its tokens, in the mixture that the config asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from data.feeds import shares
from data.tokens.mixture import Mixture
from data.tokens.store import TokenStore
from data.tokens.token_rows import TokenRows
from rlhf.config.corpus import Mixture as MixtureSettings
from rlhf.config.schema import Corpus
from rlhf.corpus import TOKENS

HELD_OUT_WINDOWS = 1000  # of a corpus, that a phase is evaluated on where its config says nothing


def corpus_rows(
    artifact: Path,
    corpus: Corpus,
    settings: MixtureSettings,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    seed: int,
    total_rows: int | None = None,
    passes: int = 1,
    held_out_windows: int = 0,
) -> tuple[TokenRows, TokenRows]:
    """(to train on, held out). total_rows: of the whole training, which a schedule of weights follows; default: so many passes.

    Raises UserError where the weights do not fit, or the tokens are another tokenizer's.
    """
    store = TokenStore.open(artifact / TOKENS)
    windows = store.windows(max_length)
    mixture = Mixture(
        windows,
        weights=weights_of(corpus, settings, windows),
        temperature=settings.temperature,
        schedule=[
            (share, shares(windows, weights, temperature=settings.temperature)) for share, weights in settings.schedule
        ],
        seed=seed,
    )
    mixture = replace(mixture, total_rows=total_rows or mixture.pass_rows * passes)
    train = TokenRows.of(store, tokenizer, mixture, max_length)
    return train, train.held_out(held_out_windows or HELD_OUT_WINDOWS)


def weights_of(corpus: Corpus, settings: MixtureSettings, windows: Mapping[str, int]) -> dict[str, float] | None:
    """The static weights: the phase's, else the corpus's, filled up; None where neither names any."""
    if settings.schedule:
        return None
    own = {source.name: source.weight for source in corpus.sources if source.weight is not None}
    given = settings.weights or {name: weight for name, weight in own.items() if name in windows}
    return shares(windows, given, temperature=settings.temperature) if given else None
