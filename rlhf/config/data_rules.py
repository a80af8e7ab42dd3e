"""Rules about data: where sets may be mixed and in which shares, and what templates make of rows."""

from __future__ import annotations

from rlhf.config.corpus_rules import weights_fit
from rlhf.config.data import Data, Part
from rlhf.config.model_rules import Advice
from rlhf.config.roles import DATA_SETS, corpus_of, data_sets, named_data
from rlhf.config.schema import Config, Phase

MIXED = ("pretrain", "sft")  # kinds of phases whose data may be a mix
# settings that say nothing of a mix as a whole
OF_PARTS = ("split", "columns", "args", "limit", "holdout", "templates")
# kind of rows: what its templates must make
FORMS = {"text": ("text",), "chat": ("prompt", "response"), "prompts": ("prompt",)}


def mixes_are_trained_on(config: Config, phase: Phase) -> Advice:
    for name, data in named_data(phase).items():
        where = f"phases.{phase.name}.{name}"
        if data.mix and (name != "data" or phase.kind not in MIXED):
            yield f"{where}.mix: only the data of phases of kind {' and '.join(MIXED)} can be a mix; name one data set's path"
        elif data.mix and data.path:
            yield f"{where}: path and mix; make the path a part of the mix, or remove one"
        elif "temperature" in data.given and not data.mix:
            yield f"{where}.temperature: it is of a mix's shares, and there is no mix; remove it"
        if data.mix and (misplaced := [setting for setting in OF_PARTS if setting in data.given]):
            yield f"{where}: in a mix, {', '.join(misplaced)} are of the parts; set {where}.mix.<part>.{misplaced[0]}"


def shares_can_be_had(config: Config, phase: Phase) -> Advice:
    data, where = phase.data, f"phases.{phase.name}.data"
    if not data.mix:
        return
    given = {name: part.weight for name, part in data.mix.items() if part.weight is not None}
    if given:
        yield from weights_fit(f"{where}.mix", given, list(data.mix))
    if len(given) == len(data.mix) and "temperature" in data.given:
        yield f"{where}.temperature: every part has its weight, so it would do nothing; remove it, or the weights"
    for name, part in data.mix.items():
        if part.weight is not None and part.cap is not None:
            yield f"{where}.mix.{name}.cap: a part with a weight has its share whatever its rows are; remove cap or weight"
        if "temperature" in part.given:
            yield f"{where}.mix.{name}.temperature: it is of the whole mix; set {where}.temperature"
        corpus = corpus_of(config, part)
        # a corpus sets documents aside, of which `holdout` says how many windows are used
        if part.weight == 0 and not part.holdout and (corpus is None or not corpus.holdout):
            holdout = "its holdout" if corpus is None else f"phases.{corpus.name}.holdout"
            yield (
                f"{where}.mix.{name}: of weight 0 nothing is trained on, and nothing is held out to be evaluated on; set "
                f"{holdout}, or remove it"
            )


def mixes_are_evaluated_by_part(config: Config, phase: Phase) -> Advice:
    if phase.data.mix and getattr(phase, "eval_data", None) is not None:
        yield (
            f"phases.{phase.name}.eval_data: a mix is evaluated on what each part holds out; remove it, and set holdout in the "
            "parts (one of weight 0 is only evaluated)"
        )


def templates_make_what_is_read(config: Config, phase: Phase) -> Advice:
    for name, data in data_sets(phase).items():
        if not data.templates or corpus_of(config, data) is not None:
            continue
        where, kind = f"phases.{phase.name}.{name}.templates", _kind(phase, name, data)
        if kind is None:
            yield f"{where}: a phase of kind {phase.kind} reads comparisons and labels, which no template makes; remove them"
            continue
        for place, template in enumerate(data.templates):
            if missing := [form for form in FORMS[kind] if getattr(template, form) is None]:
                yield f"{where}[{place}]: {' and '.join(missing)} missing: the rows are read as {kind}{_other_rows(data, kind)}"


def _kind(phase: Phase, name: str, data: Data) -> str | None:
    """What the rows are read as, where a template can make that."""
    if name == "answers.data" or (name == "data" and phase.kind in ("rl", *DATA_SETS)):
        return "prompts"
    if name == "ptx.data":
        return "text"
    if isinstance(data, Part) and data.rows:
        return data.rows
    return {"pretrain": "text", "sft": "chat"}.get(phase.kind)


def _other_rows(data: Data, kind: str) -> str:
    if isinstance(data, Part) and kind in ("text", "chat"):
        return f"; for the other kind, set the part's rows: {'chat' if kind == 'text' else 'text'}"
    return ""


DATA_RULES = (
    mixes_are_trained_on,
    shares_can_be_had,
    mixes_are_evaluated_by_part,
    templates_make_what_is_read,
)
