"""What a phase's data look like to the model, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.errors import UserError
from data.examples import build_examples
from data.messages import strings_in
from data.prompts import build_prompts
from data.tokenizer import ensure_chat_template, load_tokenizer
from data.unit import DataReport
from rlhf.config.explain import did_you_mean
from rlhf.config.roles import CORPUS, DATA_SETS, PHASE, corpus_of, resolve_models, result_role
from rlhf.config.schema import Config, Phase
from rlhf.corpus.mixing import corpus_rows
from rlhf.phases.base import open_data, tokenizer_of_data
from rlhf.phases.supervised import options_of, rows_of
from rlhf.rundir import Artifact, RunDirectory

Pieces = list[tuple[str, bool]]  # a sample's text, each piece with whether it is trained on


def preview(config: Config, phase: Phase, count: int) -> tuple[DataReport, list[Pieces]]:
    """The phase's data report and its first samples. Of an rl phase, whose answers are yet to be sampled, the prompts.

    Raises UserError where the data or the tokenizer cannot be read.
    """
    artifacts = RunDirectory(Path(config.run.directory)).finished(other.name for other in config.phases)
    if phase.kind == CORPUS:
        raise UserError(f"phases.{phase.name}: a corpus is looked at in its page; make it with launch.py corpus")
    if corpus := corpus_of(config, phase):
        if corpus.name not in artifacts:
            raise UserError(
                f"phases.{phase.name}: the corpus {corpus.name!r} is not made yet; make it: launch.py corpus"
            )
        artifact, seed = artifacts[corpus.name].path, config.run.seed if phase.seed is None else phase.seed
        train, _ = corpus_rows(artifact, corpus, phase, load_tokenizer(artifact), seed)
        return train.report, [train.spans(unit) for unit in range(count)]
    tokenizer, rows = tokenizer_of(config, phase, artifacts), open_data(phase.data, artifacts)
    if phase.kind in ("rl", *DATA_SETS):
        prompts, report = build_prompts(rows, tokenizer, phase.max_length - phase.sampling.max_new_tokens)
        return report, [[(tokenizer.decode(prompt.tokens), False)] for prompt in prompts[:count]]
    examples = build_examples(rows_of(phase), rows, tokenizer, phase.max_length, options_of(phase))
    return examples.report, [examples.spans(unit) for unit in range(min(count, len(examples)))]


def tokenizer_of(config: Config, phase: Phase, artifacts: Mapping[str, Artifact]) -> Any:
    """The tokenizer that the phase would use: its own, trained as the run would; that of the model it starts from; or, where
    an earlier phase has not run yet, the one that this phase would use.

    Raises UserError where the config leads to none.
    """
    settings = getattr(phase, "tokenizer", None)
    if settings is not None:
        rows = () if settings.path else open_data(phase.data, artifacts)
        return tokenizer_of_data(settings, (text for row in rows for text in strings_in(row)))
    path = resolve_models(config, phase)[result_role(phase) or "policy"].path
    if path is None:
        raise UserError(f"phases.{phase.name}: neither a tokenizer nor a model that brings one is named")
    if path.startswith(PHASE):
        name = path.removeprefix(PHASE)
        earlier = {other.name: other for other in config.phases[: config.phases.index(phase)]}
        if name not in earlier:
            raise UserError(f"phases.{phase.name}: {path} names no earlier phase{did_you_mean(name, earlier)}")
        if name not in artifacts:
            return tokenizer_of(config, earlier[name], artifacts)
        path = str(artifacts[name].path)
    return ensure_chat_template(load_tokenizer(path))
