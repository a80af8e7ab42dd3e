"""A config with everything that follows from it, made once. Rules, `launch.py plan`, phases and the scaling grid read it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.imports import load_object
from rlhf.config.data import Data
from rlhf.config.kinds import CORPUS, JUDGE, KINDS, PHASE, Kind
from rlhf.config.rewards import Reward
from rlhf.config.schema import AnyPhase, Config, Corpus, Model, Phase, PhaseBase

if TYPE_CHECKING:
    from rlhf.interfaces import Algorithm, Objective

Architecture = tuple[Mapping[str, Any], "Phase | None"]
ROLE_OF_COLUMN = {
    "ref_logprobs": "reference",
    "values": "critic",
}  # the role that computes what an algorithm or loss reads


@dataclass(frozen=True, eq=False)
class ResolvedPhase:
    """A phase with its models and data. Its objective or algorithm is built at first use, because that may import the
    user's modules."""

    config: Config
    settings: Phase
    kind: Kind
    earlier: tuple[ResolvedPhase, ...]  # the phases that run before it
    models: Mapping[str, Model]  # by role, all that its kind can use
    data: Mapping[str, Data]  # by setting: data, eval_data, answers.data, ptx.data
    data_sets: Mapping[str, Data]  # the same, each part of a mix on its own
    corpora: Mapping[str, Corpus]  # by setting, the corpora that it trains on
    reward_models: Mapping[str, str | None]  # {role: path}, see `_reward_models`
    given: Algorithm | None = None  # by value, instead of the config's

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def where(self) -> str:
        """The setting of the phase, for messages."""
        return f"phases.{self.name}"

    @property
    def rewards(self) -> list[Reward]:
        """All rewards that score answers, also those of the watch."""
        return [reward for rewards in self.listed_rewards.values() for reward in rewards]

    @property
    def listed_rewards(self) -> dict[str, Sequence[Reward]]:
        """{setting: the rewards that it lists}."""
        return _listed_rewards(self.settings)

    @property
    def samples_answers(self) -> bool:
        """Whether the phase needs the rollout engines."""
        return self.kind.samples or getattr(self.settings, "answers", None) is not None

    @property
    def needs_cluster(self) -> bool:
        """All but a corpus that is made in this process."""
        return self.kind.name != CORPUS or self.settings.workers > 1

    @cached_property
    def objective(self) -> Objective:
        """Of a supervised phase. Raises UserError where its name or a parameter is wrong."""
        return self._learning

    @cached_property
    def algorithm(self) -> Algorithm:
        """Of an rl phase. Raises UserError where its name or a parameter is wrong."""
        return self.given or self._learning

    @cached_property
    def _learning(self) -> Any:
        named = getattr(self.settings, self.kind.setting)
        return load_object(self.kind.resolver)(named.name, named.parameters)

    @property
    def rows(self) -> str | None:
        """The kind of the rows (`data.examples.KINDS`), which the loss may name. Raises UserError as `objective` does."""
        return getattr(self.objective, "rows", self.kind.rows) if self.kind.supervised else self.kind.rows

    @cached_property
    def needed(self) -> dict[str, Model]:
        """{role: model} of the models to build: all but a reference or critic that algorithm, loss and watch do not need.
        Raises UserError where the algorithm or loss is wrong."""
        undecided = {role for role in self.models if _is_undecided(role)}
        if not undecided:
            return dict(self.models)
        columns = set(self.algorithm.needs if self.kind.setting == "algorithm" else self.objective.columns)
        watch = getattr(self.settings, "watch", None)
        if watch is not None and watch.gold:
            columns.add("ref_logprobs")  # the watch measures how far the policy has gone
        unneeded = undecided - {role for column, role in ROLE_OF_COLUMN.items() if column in columns}
        return {role: model for role, model in self.models.items() if role not in unneeded}

    @property
    def certain(self) -> ResolvedPhase:
        """The phase with only the models that it builds with any algorithm or loss."""
        return replace(self, models={role: model for role, model in self.models.items() if not _is_undecided(role)})

    @property
    def decided(self) -> ResolvedPhase:
        """The phase with only the models that its algorithm or loss needs beyond those. Raises as `needed` does."""
        return replace(self, models={role: model for role, model in self.needed.items() if _is_undecided(role)})

    def parent(self, path: str) -> ResolvedPhase | None:
        """The earlier phase that `phase:<name>` names; None where there is none, or for other paths."""
        return next((phase for phase in self.earlier if path == PHASE + phase.name), None)

    def replicas_of(self, role: str) -> int:
        """How many copies of the role's model see different rows; its pool exists."""
        model = self.models[role]
        return max(1, self.config.pools[model.pool].devices // (model.tensor_parallel * model.pipeline_parallel))

    def place_of(self, role: str, field: str) -> str:
        """The setting that gave the role this field: the phase's own or the top level's."""
        own = self.settings.models.get(role)
        if role == JUDGE:
            return f"{self.where}.judge.{'model' if field == 'path' else field}"
        if scores_answers(role) and role != "reward" and field == "path":
            return f"{self.where}.reward.models"
        at_top = (own is None or field not in own.model_fields_set) and role in self.config.models
        return f"models.{role}.{field} (phase {self.name})" if at_top else f"{self.where}.models.{role}.{field}"

    def architecture_of(self, role: str) -> Architecture | None:
        """(known fields of the role's transformers config, the phase that builds the model from them; None for a directory).
        Follows `phase:` paths to the phase that made the model. None where nothing is known."""
        model = self.models[role]
        if model.architecture:
            return model.architecture, self.settings
        if not model.path:
            return None
        if not model.path.startswith(PHASE):
            file = Path(model.path) / "config.json"
            return (json.loads(file.read_text()), None) if file.is_file() else None
        parent = self.parent(model.path)
        return parent.architecture_of(parent.kind.result) if parent and parent.kind.result else None


@dataclass(frozen=True, eq=False)
class Resolved:
    """A config's phases in their order, and what `rlhf.run` was given by value instead of the config's."""

    config: Config
    phases: tuple[ResolvedPhase, ...]
    reward: Any = None
    rollout_given: bool = False

    def __getitem__(self, name: str) -> ResolvedPhase:
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def scaled(self) -> ResolvedPhase:
        """The phase that the scaling grid is made of; the section's rules say that it is there."""
        wanted = self.config.scaling.phase
        return next(phase for phase in self.phases if phase.kind.name == "pretrain" and wanted in ("", phase.name))


def resolve(
    config: Config, *, algorithm: Algorithm | None = None, reward: Any = None, rollout_given: bool = False
) -> Resolved:
    """Works for any config, also one that breaks rules. algorithm, reward, rollout_given: objects that `rlhf.run` got."""
    phases: list[ResolvedPhase] = []
    for settings in config.phases:
        phases.append(_resolved(config, settings, tuple(phases), algorithm))
    return Resolved(config, tuple(phases), reward, rollout_given)


def scores_answers(role: str) -> bool:
    """Whether it is a reward model's role."""
    return role.startswith("reward")


def _resolved(
    config: Config, settings: Phase, earlier: tuple[ResolvedPhase, ...], algorithm: Algorithm | None
) -> ResolvedPhase:
    kind = KINDS[settings.kind]
    given = algorithm if "algorithm" in kind.given else None
    if kind.name == CORPUS:
        return ResolvedPhase(config, settings, kind, earlier, {}, {}, {}, {}, {}, given)
    data = dict(_data(settings))
    corpora = {PHASE + phase.name: phase for phase in config.phases if phase.kind == CORPUS}
    trained_on = settings.data.sets("data").items()
    return ResolvedPhase(
        config=config,
        settings=settings,
        kind=kind,
        earlier=earlier,
        models=_models(config, settings, kind),
        data=data,
        data_sets={where: part for name, each in data.items() for where, part in each.sets(name).items()},
        corpora={
            name: corpora[each.path] for name, each in trained_on if isinstance(each.path, str) and each.path in corpora
        },
        reward_models=_reward_models(settings),
        given=given,
    )


def _models(config: Config, phase: PhaseBase, kind: Kind) -> dict[str, Model]:
    """Merges the phase's `models` over the top-level ones, per field; a path wins over an architecture. Without a start of
    its own, the reference starts as the policy, the critic as the reward model or else as the policy."""
    models = {role: _merged(config, phase, role) for role in ("policy", "reference", "critic", "reward")}
    start = models["reward"] if models["reward"].path else models["policy"]
    models["critic"] = _starting_as(models["critic"], start)
    models["reference"] = _starting_as(models["reference"], models["policy"])
    found = {role: models[role] for role in kind.roles}
    for role, path in _reward_models(phase).items():
        found[role] = models["reward"].model_copy(update={"path": path, "architecture": None} if path else {})
    judge = getattr(phase, "judge", None)
    if judge is not None and judge.model:
        found[JUDGE] = Model(path=judge.model, pool=judge.pool)
    return found


def _merged(config: Config, phase: PhaseBase, role: str) -> Model:
    base, top = config.models.get(role, Model()), phase.models.get(role, Model())
    fields = {name: getattr(top, name) for name in top.model_fields_set}
    if top.architecture:
        fields.setdefault("path", None)  # from scratch, whatever the top level starts from
    model = base.model_copy(update=fields)
    return model.model_copy(update={"architecture": None}) if model.path else model


def _starting_as(model: Model, other: Model) -> Model:
    """The model, started from the other's path where it names neither path nor architecture."""
    return model if model.path or model.architecture else model.model_copy(update={"path": other.path})


def _reward_models(phase: AnyPhase) -> dict[str, str | None]:
    """{role: path} of the reward models that score answers. `reward` is the config's role, without a path here; models that
    a reward names itself are reward_1, reward_2, … in the order of their first mention."""
    rewards = [reward for listed in _listed_rewards(phase).values() for reward in listed if reward.source == "model"]
    named = dict.fromkeys(path for reward in rewards for path in reward.models)
    own = {"reward": None} if any(not reward.models for reward in rewards) else {}
    return own | {f"reward_{number}": path for number, path in enumerate(named, 1)}


def _listed_rewards(phase: AnyPhase) -> dict[str, Sequence[Reward]]:
    listed = {"reward": phase.reward} if hasattr(phase, "reward") else {}
    if watch := getattr(phase, "watch", None):
        listed |= {"watch.gold": watch.gold, "watch.format": [watch.format] if watch.format else []}
    return listed


def _data(phase: PhaseBase) -> Iterator[tuple[str, Data]]:
    yield "data", phase.data
    if eval_data := getattr(phase, "eval_data", None):
        yield "eval_data", eval_data
    for name in ("answers", "ptx"):
        if settings := getattr(phase, name, None):
            yield f"{name}.data", settings.data


def _is_undecided(role: str) -> bool:
    return role in ROLE_OF_COLUMN.values()
