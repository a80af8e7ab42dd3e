"""The configuration as one typed, frozen tree. A YAML file holds only what differs from these defaults."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

# A pattern's description is what the error message says was wanted.
Fraction = Annotated[float, Field(ge=0, le=1)]
Function = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$", description="module:function")]
RewardSource = Annotated[
    str,
    Field(
        pattern=r"^(\w+|[\w.]+:[\w.]+)$",
        description="model (a reward model), environment, judge, a rule's name or module:function",
    ),
]


class Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Short(Node):
    """A node that a plain value may stand for: that of the one field that is nearly always set."""

    short: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return {cls.short: value} if isinstance(value, str | list) else value


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
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 on GPUs, float32 on CPUs
    zero_stage: int = Field(2, ge=0, le=3)
    microbatch_tokens: int = Field(4096, ge=1)  # packed tokens of one micro-batch
    activation_checkpointing: bool = False

    @model_serializer(mode="wrap")
    def _only_set(self, handler: Any) -> dict[str, Any]:
        # a default written out would, read back, cover what the top level sets
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}


class Optim(Node):
    lr: float = Field(3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)  # on matrices only
    warmup: Fraction = 0.05  # share of the phase's steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_ratio: Fraction = 0.1
    clip_norm: float = Field(1.0, gt=0)


class Data(Short):
    short = "path"
    path: str | list[str]  # files, a directory, a data set's name, or module:function that yields rows
    split: str = "train"  # of a named data set
    columns: dict[str, str] = {}  # name that the phase wants: name in the file
    args: dict[str, Any] = {}  # keyword arguments of module:function
    limit: int | None = Field(None, ge=1)  # first rows only
    holdout: int = Field(0, ge=0)  # rows, chosen by the seed, set aside for evaluation


class Tokenizer(Node):
    """Loaded from `path`, or trained (byte-level BPE) from the phase's own data."""

    path: str | None = None
    vocab_size: int = Field(4096, ge=260)


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


class Limits(Node):
    """What a call of a reward function may take; beyond it its process is killed, and the samples go without a score."""

    timeout_s: float = Field(60.0, gt=0)
    memory_gib: float = Field(4.0, gt=0)
    output_mib: float = Field(16.0, gt=0)  # printed
    retries: int = Field(1, ge=0)  # of a call that failed
    workers: int = Field(2, ge=1)  # processes


class Reward(Short):
    """One part of the reward: `model` (reward models), `environment` (the rollout's own score), `judge` (the phase's judge),
    a rule's name or `module:attribute`; see docs/rewards.md. The parts are summed with their weights."""

    short = "source"
    source: RewardSource = "model"
    name: str = Field("", pattern=r"^[\w.-]*$", description="letters, digits, '.', '_' and '-'")  # default: the source's
    weight: float = 1.0
    clip: tuple[float, float] | None = None
    models: list[str] = []  # of source model: several make an ensemble; default: the role `reward`
    std_penalty: float = Field(0.0, ge=0)  # of an ensemble: the reward is its mean - std_penalty * its std
    args: dict[str, Any] = {}  # parameters of a rule, or of the user's class or function
    limits: Limits = Limits()


class Piecewise(Node):
    """Of two goods, the guarded one first: where the guard's score is low, or the prompt calls for it, that score alone is
    the reward, else the weighted sum of the other parts (Llama 2, Touvron et al. 2023, section 3.2.3)."""

    guard: str  # name of a part
    below: float = -1.7346  # in the guard's own units; the default is a probability of 0.15 as a logit
    prompts: str | None = None  # a column of the prompts: true where the guard alone scores


class Judge(Node):
    """A language model that is asked which of two answers is better, or how good one is; see docs/judge.md."""

    model: str | None = None  # phase:<name> or a directory, served by vLLM; or `url`
    pool: str = "judge"  # that serves it
    url: str | None = None  # of any OpenAI-compatible server, ending in /v1
    name: str = "judge"  # of the model at `url`
    key_variable: str = "OPENAI_API_KEY"  # the environment variable that holds the key for `url`
    kind: Literal["pairwise", "pointwise"] = "pairwise"
    swap: bool = True  # pairwise: asked in both orders; a verdict that follows the position is no preference
    principles: list[str] = []  # a constitution: each question names one of them, drawn by the seed
    template: str | None = None  # of the question, with {principle}, {prompt}, and {first} and {second}, or {answer} and {best}
    best: float = 10.0  # pointwise: the highest rating
    max_new_tokens: int = Field(16, ge=1)
    max_length: int = Field(4096, ge=2)  # tokens of a question and its verdict, of a model that is served
    timeout_s: float = Field(60.0, gt=0)  # of a question
    retries: int = Field(3, ge=0)
    at_once: int = Field(16, ge=1)  # questions in flight


class Watch(Node):
    """A look, every few steps, at whether the reward is still worth what it says. A gold reward that the policy is not
    trained on scores the step's answers, too."""

    every: int = Field(5, ge=1)  # rollout steps
    gold: list[Reward] = []  # none: alarms alone
    stop: bool = True  # where gold turns down while the reward rises
    patience: int = Field(2, ge=1)  # looks that gold must stay below its best
    format: Reward | None = None  # 1 for an answer in the wanted format, else 0: an alarm where its mean falls


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


class PhaseBase(Node):
    # default: the kind. No dots and no leading digit: overrides read phases.<name>.<setting> and phases.<index>.<setting>
    name: str = Field("", pattern=r"^[A-Za-z_][\w-]*$", description="a letter, then letters, digits, '_' and '-'")
    models: dict[Literal["policy", "reference", "critic", "reward"], Model] = {}  # laid over the top-level `models`
    data: Data
    max_length: int = Field(512, ge=2)  # tokens of a row, prompt and answer
    seed: int | None = None  # default: the run's
    answers: AnswerEvaluation | None = None
    goals: dict[str, Goal] = {}
    checkpoint_every: int = Field(100, ge=0)  # steps; 0: never, an interrupted phase begins anew
    optim: Optim = Optim()

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("name"):
            value = {**value, "name": value.get("kind", "")}
        return value


class SupervisedPhase(PhaseBase):
    eval_data: Data | None = None  # default: the rows that data.holdout sets aside
    batch_size: int = Field(32, ge=1)  # rows (pairs) of one optimizer step, over all ranks
    epochs: int = Field(1, ge=1)
    steps: int | None = Field(None, ge=1)  # of the optimizer, over as many epochs as they take; instead of `epochs`
    evaluate_every: int = Field(0, ge=0)  # 0: only at the end


class Pretrain(SupervisedPhase):
    kind: Literal["pretrain"]
    tokenizer: Tokenizer | None = None  # default: the policy's own


class Sft(SupervisedPhase):
    kind: Literal["sft"]
    tokenizer: Tokenizer | None = None


class Named(Short):
    """`name` is a built-in one or module:Class; the other keys are its fields, checked against the class."""

    model_config = ConfigDict(extra="allow")
    short = "name"
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


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
    annotators: dict[str, float] | Literal["agreement"] = {}  # weights of their rows, 1 where not named; or by agreement


class Dpo(SupervisedPhase):
    kind: Literal["dpo"]
    loss: Loss = Loss()
    precompute_reference: bool = False  # the reference's log-probs of all rows first; then its devices are free


class Overlong(Node):
    """Soft punishment of long answers (DAPO, Yu et al. 2025, equation 13): from 0 at limit - buffer tokens to -1 at limit."""

    limit: int = Field(ge=1)  # tokens of an answer
    buffer: int = Field(ge=1)


class Shaping(Node):
    """What happens to the rewards before the algorithm sees them, in this order."""

    normalise: bool = False  # by the running mean and standard deviation of all rewards of the phase so far
    clip: float | None = Field(None, gt=0)  # kept within +- this
    missing_end: float = Field(0.0, ge=0)  # taken from the reward of an answer that hit the length limit
    overlong: Overlong | None = None
    drop_truncated: bool = False  # answers that hit the length limit count for the baseline, but are not trained on


class Correction(Node):
    """Importance weights p(trainer) / p(rollout engine) on the tokens' advantages, for the gap between the two: truncated
    to [low, high]; masked, 0 outside of it (IcePop); or sequence, answers whose geometric mean is outside of it weigh 0."""

    kind: Literal["truncated", "masked", "sequence", "off"] = "truncated"
    low: float | None = Field(None, ge=0, lt=1)  # default: truncated 0, masked and sequence 0.5
    high: float | None = Field(None, gt=1)  # default: truncated 2, masked and sequence 5

    @property
    def bounds(self) -> tuple[float, float]:
        low, high = (0.0, 2.0) if self.kind == "truncated" else (0.5, 5.0)
        return low if self.low is None else self.low, high if self.high is None else self.high


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
    ema: float | None = Field(
        None, gt=0, lt=1
    )  # decay of the average of the policy's weights, which is then the result
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


Phase = Annotated[Pretrain | Sft | RewardModel | Dpo | Rl | BestOfN | Label, Field(discriminator="kind")]


class Config(Node):
    run: Run = Run()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pools: dict[str, Pool] = {"train": Pool()}
    models: dict[Literal["policy", "reference", "critic", "reward"], Model] = {}
    rollout: Rollout = Rollout()
    phases: list[Phase] = Field(min_length=1)
