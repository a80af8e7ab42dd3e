"""The config as one typed, frozen tree. A YAML file holds only the differences from these defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from rlhf.config.corpus import DEFAULT_STEPS, CorpusTokenizer, Mixture, Reserved, Source, StepConfig, Tokenizer
from rlhf.config.data import Data
from rlhf.config.node import Fraction, Function, Named, Node, Short
from rlhf.config.rewards import Correction, Judge, Piecewise, Reward, Shaping, Watch
from rlhf.config.scaling import Scaling
from rlhf.config.training import Optim, Ramp, Spikes


class Run(Node):
    name: str = Field("run", pattern=r"^\w[\w.-]*$", description="letters, digits, '.', '_' and '-'")
    seed: int = 0
    output: str = ""  # the run directory; default runs/<name>

    @property
    def directory(self) -> str:
        return self.output or f"runs/{self.name}"


class Pool(Node):
    """A set of devices. The roles of a pool take turns on its devices; different pools work at the same time."""

    devices: int = Field(1, ge=1)  # GPUs; on a cluster without GPUs, processes


class Model(Short):
    """One role's model. In a phase's `models`, the fields that are set there replace those of the top level."""

    short = "path"
    path: str | None = None  # a Hugging Face directory, a model name, or phase:<name>
    architecture: dict[str, Any] | None = None  # of a new model: fields of a transformers config, such as model_type
    pool: str = "train"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 on GPUs, float32 on CPUs
    zero_stage: int = Field(2, ge=0, le=3)
    tensor_parallel: int = Field(1, ge=1)  # devices that share each matrix; docs/parallel.md says what goes together
    pipeline_parallel: int = Field(1, ge=1)  # devices that share the layers
    microbatch_tokens: int = Field(4096, ge=1)  # packed tokens in one micro-batch
    activation_checkpointing: bool = False

    @model_serializer(mode="wrap")
    def _only_set(self, handler: Any) -> dict[str, Any]:
        # a default that is written out would replace the top level's setting when it is read back
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class Rollout(Node):
    engines: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    pool: str = "rollout"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    memory_gib: float = Field(1.0, gt=0)  # KV cache of one engine on a CPU
    gpu_memory_utilization: Fraction = 0.85
    max_sequences: int = Field(256, ge=1)  # decoded at the same time, per engine
    prefix_caching: bool = True
    bucket_bytes: int = Field(64 * 2**20, ge=2**20, le=256 * 2**20)  # of one weight-sync message
    # largest gap between the logprobs of rollout engine and trainer after a sync, in float32
    canary_tolerance: float = Field(1e-3, gt=0)


class SamplingConfig(Node):
    max_new_tokens: int = Field(128, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1)  # per prompt


class Score(Short):
    """A figure of held-out answers: the mean of module:function. `best` is the highest possible mean."""

    short = "source"
    source: Function
    best: float | None = None


class AnswerEvaluation(Node):
    """Sample answers to held-out prompts and score them."""

    data: Data
    scores: dict[str, Score]
    sampling: SamplingConfig = SamplingConfig()
    show: int = Field(3, ge=0)  # prompts whose answers before and after training are shown at the end


class Goal(Node):
    """Bounds of a figure of the phase; a missed goal makes the run exit with code 1."""

    at_least: float | None = None
    at_most: float | None = None


class AnyPhase(Node):
    # default: the kind. No dots and no leading digit, because overrides are phases.<name>.<setting> or
    # phases.<index>.<setting>
    name: str = Field("", pattern=r"^[A-Za-z_][\w-]*$", description="a letter, then letters, digits, '_' and '-'")
    seed: int | None = None  # default: the run's
    goals: dict[str, Goal] = {}

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name"):
            value = {**value, "name": value.get("kind", "")}
        return value


class Corpus(AnyPhase):
    """Cleans, deduplicates and tokenises texts. A later `pretrain` names the phase as its data's path."""

    kind: Literal["corpus"]
    sources: list[Source] = Field(min_length=1)
    steps: list[StepConfig] = DEFAULT_STEPS
    reserved: dict[
        str, Reserved
    ] = {}  # {name in the report: texts} to keep out, in addition to the data that this run evaluates on
    tokenizer: CorpusTokenizer | None = CorpusTokenizer()  # null: documents only
    holdout: Fraction = 0.01  # share of the documents, drawn by their places, that is not trained on
    unit_mb: float = Field(32.0, gt=0)  # of input that one worker reads at once, and of an output file
    max_document_mb: float = Field(16.0, gt=0)  # a longer one is quarantined
    workers: int = Field(1, ge=1)  # 1: in this process, without Ray; more: on the cluster


class PhaseBase(AnyPhase):
    models: dict[Literal["policy", "reference", "critic", "reward"], Model] = {}  # merged over the top-level `models`
    data: Data
    max_length: int = Field(512, ge=2)  # tokens of a row: prompt and answer
    answers: AnswerEvaluation | None = None
    checkpoint_every: int = Field(100, ge=0)  # steps; 0: never, so that an interrupted phase starts again
    optim: Optim = Optim()


class SupervisedPhase(PhaseBase):
    eval_data: Data | None = None  # default: the rows that data.holdout sets aside
    batch_size: int = Field(32, ge=1)  # rows or pairs of one optimizer step, over all ranks
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)  # optimizer steps, over as many epochs as they take; instead of `epochs`
    evaluate_every: int = Field(0, ge=0)  # 0: only at the end
    ramp: Ramp | None = None
    spikes: Spikes | None = None


class TextObjective(Named):
    """causal, prefix, masked, spans, denoisers, or module:Class; see docs/pretraining.md."""

    name: str = "causal"


class Pretrain(SupervisedPhase):
    kind: Literal["pretrain"]
    objective: TextObjective = TextObjective()
    tokenizer: Tokenizer | None = None  # default: the policy's own, or the corpus's
    mixture: Mixture = Mixture()  # of a corpus's sources


class Sft(SupervisedPhase):
    kind: Literal["sft"]
    objective: TextObjective = TextObjective()  # causal; or prefix, which reads the prompt in both directions
    tokenizer: Tokenizer | None = None


class Loss(Named):
    """Of the family: dpo, ipo, hinge, robust, kto, orpo, simpo, cpo, nll, mix; see docs/algorithms.md."""

    name: str = "dpo"


class RewardLoss(Named):
    """pairwise, kwise, plackett_luce, pointwise, binary or process; see docs/rewards.md."""

    name: str = "pairwise"


class AlgorithmConfig(Named):
    name: str = "ppo"


class RewardModel(SupervisedPhase):
    kind: Literal["reward"]
    loss: RewardLoss = RewardLoss()
    attributes: dict[str, float] = {}  # {attribute: weight} of ratings by attribute; default: equal weights
    # {annotator: weight of their rows}, 1 for others; or weights by agreement
    annotators: dict[str, float] | Literal["agreement"] = {}


class Dpo(SupervisedPhase):
    kind: Literal["dpo"]
    loss: Loss = Loss()
    precompute_reference: bool = False  # computes the reference's logprobs of all rows first, then frees its devices


class Ptx(Node):
    """Adds a pretraining loss to every optimizer step of the policy (Ouyang et al. 2022, equation 2)."""

    data: Data  # rows with a column `text`
    coef: float = Field(1.0, gt=0)
    batch_size: int = Field(32, ge=1)  # rows of one optimizer step


class Rl(PhaseBase):
    kind: Literal["rl"]
    algorithm: AlgorithmConfig = AlgorithmConfig()
    reward: list[Reward] = []
    combine: Piecewise | None = None  # default: the weighted sum of all parts
    judge: Judge | None = None
    watch: Watch | None = None
    shaping: Shaping = Shaping()
    correction: Correction = Correction()
    rollout: Function | None = None  # a multi-turn rollout or environment; default: one answer per prompt
    sampling: SamplingConfig = SamplingConfig()
    prompts_per_step: int = Field(32, ge=1)
    steps: int = Field(100, ge=1)  # rollout steps
    minibatches: int = Field(1, ge=1)  # optimizer steps in one pass over the step's samples
    epochs: int = Field(1, ge=1)  # passes over the step's samples
    # no further optimizer step of the rollout step once approx_kl is above this
    max_kl: float | None = Field(None, gt=0)
    critic_warmup: int = Field(0, ge=0)  # rollout steps at the start in which only the critic learns
    ptx: Ptx | None = None
    # decay of a moving average of the policy's weights, which is then the phase's result
    ema: float | None = Field(None, gt=0, lt=1)
    checkpoint_every: int = Field(10, ge=0)  # rollout steps
    # stores batch and weights of every such rollout step for `launch.py replay`; 0: never
    store_every: int = Field(0, ge=0)
    critic_optim: Optim = Optim()


class ManySamples(SamplingConfig):
    samples: int = Field(8, ge=1)  # per prompt


class BestOfN(PhaseBase):
    """Rejection sampling: writes the best samples of each prompt as rows of `prompt` and `response`. A later phase reads
    them as data (phase:<name>)."""

    kind: Literal["best_of_n"]
    reward: list[Reward] = []
    combine: Piecewise | None = None
    judge: Judge | None = None
    sampling: ManySamples = ManySamples()
    prompts_per_step: int = Field(256, ge=1)  # asked at once
    keep: int = Field(1, ge=1)  # of each prompt's samples
    at_least: float | None = None  # a kept sample's reward


class TwoSamples(SamplingConfig):
    samples: int = Field(2, ge=2)  # per prompt, to compare


class Label(PhaseBase):
    """Preferences from a judge, who compares the policy's answers to each prompt: writes rows of `prompt`, `chosen` and
    `rejected` (RLAIF, Bai et al. 2022, Lee et al. 2023)."""

    kind: Literal["label"]
    judge: Judge
    sampling: TwoSamples = TwoSamples()
    prompts_per_step: int = Field(128, ge=1)  # asked at once
    gold: Function | None = None  # scores a sample, as in answers.scores; reported: how often the labels agree with it


Phase = Annotated[Corpus | Pretrain | Sft | RewardModel | Dpo | Rl | BestOfN | Label, Field(discriminator="kind")]


class Config(Node):
    run: Run = Run()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pools: dict[str, Pool] = {"train": Pool()}
    models: dict[Literal["policy", "reference", "critic", "reward"], Model] = {}
    rollout: Rollout = Rollout()
    scaling: Scaling | None = None
    phases: list[Phase] = Field(min_length=1)

    @property
    def model_phases(self) -> list[Phase]:
        """All phases but those of kind corpus."""
        return [phase for phase in self.phases if phase.kind != "corpus"]
