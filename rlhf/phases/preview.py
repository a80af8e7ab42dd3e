"""Shows a phase's data as the model reads them, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from data.batch import Batch
from data.denoising.vocabulary import extend
from data.errors import UserError
from data.messages import strings_in
from data.plain_rows import build_prompts
from data.tokenizer import ensure_chat_template, load_tokenizer
from data.unit import DataReport, Example, pieces_of
from rlhf.config.corpus import Tokenizer
from rlhf.config.explain import did_you_mean
from rlhf.config.kinds import CORPUS, PHASE
from rlhf.config.resolved import ResolvedPhase
from rlhf.config.schema import Corpus
from rlhf.phases.base import PhaseContext, open_data, tokenizer_of_data
from rlhf.phases.supervised import options_of
from rlhf.phases.supervised_rows import denoised, read_splits
from rlhf.rundir import Artifact, RunDirectory

Pieces = list[tuple[str, bool]]  # the text of a row in pieces: (text, trained on)


def preview(phase: ResolvedPhase, count: int) -> dict[str, tuple[DataReport, list[Pieces]]]:
    """{data set: (report, first rows as the model reads them)}; the name is "" if there is only one data set. Of phases
    that sample answers, shows the prompts.

    Raises UserError where the data or the tokenizer cannot be read.
    """
    run, settings = RunDirectory(Path(phase.config.run.directory)), phase.settings
    artifacts = run.finished(other.name for other in phase.config.phases)
    if phase.kind.name == CORPUS:
        raise UserError(f"{phase.where}: a corpus is shown in its report page; make it with launch.py corpus")
    if phase.kind.samples:
        tokenizer, rows = tokenizer_of(phase, artifacts), open_data(settings.data, artifacts)
        prompts, report = build_prompts(rows, tokenizer, settings.max_length - settings.sampling.max_new_tokens)
        return {"": (report, [[(tokenizer.decode(prompt.tokens), False)] for prompt in prompts[:count]])}
    context = _context(phase, run, artifacts)
    found = {}
    for name, split in read_splits(context, phase.objective, phase.rows, options_of(settings)).items():
        rows = denoised(context, split.train, phase.objective)
        samples = [_pieces(rows.batch([number]), context.tokenizer) for number in range(min(count, len(rows)))]
        found[name] = split.train.report, samples
    return found


def _context(phase: ResolvedPhase, run: RunDirectory, artifacts: Mapping[str, Artifact]) -> PhaseContext:
    """A context without a cluster, with the tokenizer that the phase would use."""
    for corpus in phase.corpora.values():
        _artifact_of(phase, corpus, artifacts)
    context = PhaseContext(phase, None, run, artifacts, "", run.artifact(phase.name), Console(quiet=True))
    from_scratch = phase.models[phase.kind.result].path is None
    if getattr(phase.settings, "tokenizer", None) is None and not (
        phase.corpora and from_scratch
    ):  # else `read_splits` sets it
        context.tokenizer = tokenizer_of(phase, artifacts)
    return context


def _artifact_of(phase: ResolvedPhase, corpus: Corpus, artifacts: Mapping[str, Artifact]) -> Artifact:
    if corpus.name not in artifacts:
        raise UserError(f"{phase.where}: the corpus {corpus.name!r} is not made yet; make it: launch.py corpus")
    return artifacts[corpus.name]


def _pieces(batch: Batch, tokenizer: Any) -> Pieces:
    """The text that the model reads. A piece is trained on if the model must predict its tokens."""
    read = batch.inputs if "inputs" in batch else batch.tokens
    rows = [
        Example(read[row, :length].numpy(), batch.action_mask[row, :length].numpy())
        for row, length in enumerate(batch.lengths.tolist())
    ]
    return pieces_of(rows, tokenizer)


def tokenizer_of(phase: ResolvedPhase, artifacts: Mapping[str, Artifact]) -> Any:
    """The tokenizer that the phase would use: of its `tokenizer` section, of its corpus, or of the model that it starts
    from. If that model comes from a phase that has not run, the tokenizer that this phase would use.

    Raises UserError where the config names none, or a corpus that is not made yet.
    """
    settings = getattr(phase.settings, "tokenizer", None)
    path = phase.models[phase.kind.result or "policy"].path
    if path is None:
        tokenizer = _tokenizer_from_scratch(phase, artifacts)
        # as `rlhf.phases.supervised_rows.read_splits` does for a model from scratch
        extend(tokenizer, getattr(phase.objective, "special_tokens", ()) if phase.kind.supervised else ())
        return tokenizer
    if settings is not None:
        return _tokenizer_of_settings(settings, phase, artifacts)
    if path.startswith(PHASE):
        name, parent = path.removeprefix(PHASE), phase.parent(path)
        if parent is None:
            earlier = [other.name for other in phase.earlier]
            raise UserError(f"{phase.where}: {path} names no earlier phase{did_you_mean(name, earlier)}")
        if name not in artifacts:
            return tokenizer_of(parent, artifacts)
        path = str(artifacts[name].path)
    return ensure_chat_template(load_tokenizer(path))


def _tokenizer_from_scratch(phase: ResolvedPhase, artifacts: Mapping[str, Artifact]) -> Any:
    """The tokenizer of the phase's first corpus, or of its `tokenizer` section."""
    if corpus := next(iter(phase.corpora.values()), None):
        return load_tokenizer(_artifact_of(phase, corpus, artifacts).path)
    if (settings := getattr(phase.settings, "tokenizer", None)) is None:
        raise UserError(f"{phase.where}: neither a tokenizer nor a model that brings one is named")
    return _tokenizer_of_settings(settings, phase, artifacts)


def _tokenizer_of_settings(settings: Tokenizer, phase: ResolvedPhase, artifacts: Mapping[str, Artifact]) -> Any:
    sets = () if settings.path else phase.settings.data.sets("data").values()
    rows = (row for data in sets for row in open_data(data, artifacts))
    return tokenizer_of_data(settings, (text for row in rows for text in strings_in(row)))
