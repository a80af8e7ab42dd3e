"""The configuration as one typed, frozen tree. A YAML file holds only what differs from these defaults."""

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
    """A set of devices. Roles on the same pool share its devices in time; another pool is a separate group."""

    devices: int = Field(1, ge=1)  # GPUs, or on a CPU cluster processes


class Model(Short):
    """One role's model. In a phase's `models`, only the fields that are set there cover those of the top level."""

    short = "path"
    path: str | None = None  # an HF directory, a model name, or phase:<name>
    architecture: dict[str, Any] | None = None  # from scratch: fields of a transformers config, model_type among them
    pool: str = "train"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 on GPUs, float32 on CPUs
    zero_stage: int = Field(2, ge=0, le=3)
    tensor_parallel: int = Field(1, ge=1)  # devices that share each matrix; docs/parallel.md says what goes together
    pipeline_parallel: int = Field(1, ge=1)  # devices that share the layers
    microbatch_tokens: int = Field(4096, ge=1)  # packed tokens of one micro-batch
    activation_checkpointing: bool = False

    @model_serializer(mode="wrap")
    def _only_set(self, handler: Any) -> dict[str, Any]:
        # a default written out would, read back, cover what the top level sets
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class Rollout(Node):
    engines: int = Field(1, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    pool: str = "rollout"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    memory_gib: float = Field(1.0, gt=0)  # KV cache of one engine on CPU
    gpu_memory_utilization: Fraction = 0.85
    max_sequences: int = Field(256, ge=1)  # decoded at once, per engine
    prefix_caching: bool = True
    bucket_bytes: int = Field(64 * 2**20, ge=2**20, le=256 * 2**20)  # of one weight-sync message
    canary_tolerance: float = Field(1e-3, gt=0)  # largest log-prob gap, engine against trainer, after a sync (float32)


class SamplingConfig(Node):
    max_new_tokens: int = Field(128, ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    samples: int = Field(1, ge=1)  # per prompt


class Score(Short):
    """A figure of held-out answers: the mean of module:function over them. `best` is the highest possible mean."""

    short = "source"
    source: Function
    best: float | None = None


class AnswerEvaluation(Node):
    """Sample answers to held-out prompts and score them."""

    data: Data
    scores: dict[str, Score]
    sampling: SamplingConfig = SamplingConfig()
    show: int = Field(3, ge=0)  # prompts shown at the end, answers before and after


class Goal(Node):
    """What a figure of the phase must reach; a missed goal makes the run exit with code 1."""

    at_least: float | None = None
    at_most: float | None = None


class AnyPhase(Node):
    # default: the kind. No dots and no leading digit: overrides read phases.<name>.<setting> and phases.<index>.<setting>
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
    """Texts cleaned, deduplicated and tokenised: a data set that a later `pretrain` names as its data's path."""

    kind: Literal["corpus"]
    sources: list[Source] = Field(min_length=1)
    steps: list[StepConfig] = DEFAULT_STEPS
    reserved: dict[str, Reserved] = {}  # by a name for the report: kept out, beside what this run evaluates on
    tokenizer: CorpusTokenizer | None = CorpusTokenizer()  # null: documents only
    holdout: Fraction = 0.01  # share of the documents, drawn by their places, that no window to train on is made of
    unit_mb: float = Field(32.0, gt=0)  # of files that one worker reads at once, and of an output file
    max_document_mb: float = Field(16.0, gt=0)  # a longer one is quarantined
    workers: int = Field(1, ge=1)  # 1: in this process, without Ray; more: at once, by Ray Data


class PhaseBase(AnyPhase):
    models: dict[Literal["policy", "reference", "critic", "reward"], Model] = {}  # laid over the top-level `models`
    data: Data
    max_length: int = Field(512, ge=2)  # tokens of a row, prompt and answer
    answers: AnswerEvaluation | None = None
    checkpoint_every: int = Field(100, ge=0)  # steps; 0: never, an interrupted phase begins anew
    optim: Optim = Optim()


class SupervisedPhase(PhaseBase):
    eval_data: Data | None = None  # default: the rows that data.holdout sets aside
    batch_size: int = Field(32, ge=1)  # rows (pairs) of one optimizer step, over all ranks
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)  # of the optimizer, over as many epochs as they take; instead of `epochs`
    evaluate_every: int = Field(0, ge=0)  # 0: only at the end
    ramp: Ramp | None = None
    spikes: Spikes | None = None


class TextObjective(Named):
    """causal, prefix, masked, spans, denoisers, or module:Class; see docs/pretraining.md."""

    name: str = "causal"


class Pretrain(SupervisedPhase):
    kind: Literal["pretrain"]
    objective: TextObjective = TextObjective()
    tokenizer: Tokenizer | None = None  # default: the policy's own, or that of the corpus
    mixture: Mixture = Mixture()  # of a corpus's sources


class Sft(SupervisedPhase):
    kind: Literal["sft"]
    objective: TextObjective = TextObjective()  # causal, or prefix: the prompt is read in both directions
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
    attributes: dict[str, float] = {}  # of ratings by attribute: what each counts; default: all alike
    # weights of their rows, 1 where not named; or by agreement
    annotators: dict[str, float] | Literal["agreement"] = {}


class Dpo(SupervisedPhase):
    kind: Literal["dpo"]
    loss: Loss = Loss()
    precompute_reference: bool = False  # the reference's log-probs of all rows first; then its devices are free


class Ptx(Node):
    """Pretraining loss beside the policy's, in every optimizer step (Ouyang et al. 2022, equation 2)."""

    data: Data  # rows of `text`
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
    rollout: Function | None = None  # module:attribute of a multi-turn rollout or environment; default: one answer
    sampling: SamplingConfig = SamplingConfig()
    prompts_per_step: int = Field(32, ge=1)
    steps: int = Field(100, ge=1)  # rollout steps
    minibatches: int = Field(1, ge=1)  # optimizer steps of one pass over the step's samples
    epochs: int = Field(1, ge=1)  # passes
    max_kl: float | None = Field(None, gt=0)  # the step's further passes and mini-batches end where approx_kl is above
    critic_warmup: int = Field(0, ge=0)  # first rollout steps, in which only the critic learns
    ptx: Ptx | None = None
    # decay of the average of the policy's weights, which is then the result
    ema: float | None = Field(None, gt=0, lt=1)
    checkpoint_every: int = Field(10, ge=0)  # rollout steps
    store_every: int = Field(0, ge=0)  # rollout steps whose batch and weights are kept for `launch.py replay`; 0: none
    critic_optim: Optim = Optim()


class ManySamples(SamplingConfig):
    samples: int = Field(8, ge=1)  # per prompt


class BestOfN(PhaseBase):
    """Rejection sampling: of each prompt's samples the best ones become rows of `prompt` and `response`, the phase's data
    set, which a later phase names as its data's path (phase:<name>)."""

    kind: Literal["best_of_n"]
    reward: list[Reward] = []
    combine: Piecewise | None = None
    judge: Judge | None = None
    sampling: ManySamples = ManySamples()
    prompts_per_step: int = Field(256, ge=1)  # asked at once
    keep: int = Field(1, ge=1)  # of each prompt's samples
    at_least: float | None = None  # a kept sample's reward


class TwoSamples(SamplingConfig):
    samples: int = Field(2, ge=2)  # per prompt, compared with each other


class Label(PhaseBase):
    """Preferences from a judge: the policy's answers to each prompt are compared and become rows of `prompt`, `chosen` and
    `rejected`, the phase's data set (RLAIF, Bai et al. 2022, Lee et al. 2023)."""

    kind: Literal["label"]
    judge: Judge
    sampling: TwoSamples = TwoSamples()
    prompts_per_step: int = Field(128, ge=1)  # asked at once
    gold: Function | None = None  # of a sample, as in answers.scores: how often the labels agree with it is reported


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
        """Those that work with models: all but the making of a corpus."""
        return [phase for phase in self.phases if phase.kind != "corpus"]
