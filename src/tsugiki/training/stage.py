"""The `train` stage: a decoder trained from scratch, or an existing one trained on."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from tsugiki.artifacts.contract import (
    EXECUTION,
    ArtifactType,
    Count,
    Forecast,
    Forecasts,
    Inputs,
    Outcome,
    Reference,
    StageConfig,
    Workspace,
)
from tsugiki.dataset.settings import (
    Packing,
    Phase,
    Weight,
    Weights,
    WeightUnit,
    phases_of,
    source_names,
)
from tsugiki.training.balance import CONVENTIONS, ConventionName
from tsugiki.training.precision.recipes import Precision, our_name
from tsugiki.training.settings import FromPreset, HighLayers, Parallel, SpikeRule, TokenizerTraining

KIND = "train"
PRODUCES = ArtifactType.MODEL
CODE_VERSION = 3

MIN_LEARNING_RATE_SHARE = 30

DecayRate = Annotated[float, Field(ge=0, lt=1)]


class Config(StageConfig):
    """Train a Llama-family decoder on a weighted mixture of documents."""

    model_config = ConfigDict(allow_inf_nan=False)
    model: str | FromPreset = Field(
        description="Model to train on (a stage, a directory or a hub id), or {preset: NAME} for a new one."
    )
    tokenizer: TokenizerTraining | None = Field(
        default=None, description="How to make the tokenizer of a new model: {train: DOCUMENTS, size: 4096}."
    )
    data: dict[str, float] = Field(
        default={},
        description="Documents (a stage, its directory, or .jsonl, .parquet and .arrow files) and their "
        "weights, as shares of the training tokens.",
    )
    phases: tuple[Phase, ...] = Field(
        default=(),
        description="Instead of `data`, a curriculum: [{name: one, tokens: 377B, data: {DOCUMENTS: 1}}, ...]",
    )
    weight_unit: WeightUnit = Field(
        default="tokens", description="What weights are shares of: tokens, or bytes of text."
    )
    tokens: Count | None = Field(
        default=None,
        description="Tokens to train on, rounded down to whole batches; with phases, by default their sum.",
    )
    equal_compute: str | None = Field(
        default=None,
        description="Instead of `tokens`: spend as many floating-point operations as this train stage did.",
    )
    sequence_length: int = Field(
        default=512, ge=16, description="Tokens of context in one training sequence."
    )
    batch_tokens: Count = Field(
        default=16384,
        description="Tokens of one optimizer step over all devices; a multiple of sequence_length.",
    )
    learning_rate: float = Field(
        default=1e-4, gt=0, description="Peak learning rate; Swallow took 1e-4 for 7B and 13B, 5e-5 for 70B."
    )
    min_learning_rate: float | None = Field(
        default=None, ge=0, description="Learning rate at the end; by default a 30th of the peak, as Swallow."
    )
    warmup: int | float = Field(
        default=0.04,
        ge=0,
        description="Linear warm-up: a whole number of steps, or a share of all steps below 1.",
    )
    schedule: Literal["cosine", "constant", "wsd"] = Field(
        default="cosine", description="Course of the learning rate after the warm-up."
    )
    decay: float = Field(
        default=0.1, gt=0, le=1, description="Share of all steps in which the schedule wsd decays at the end."
    )
    decay_shape: Literal["linear", "1-sqrt"] = Field(
        default="linear", description="How wsd decays; 1-sqrt did better in arXiv 2405.18392."
    )
    betas: tuple[DecayRate, DecayRate] = Field(
        default=(0.9, 0.95), description="AdamW's decay rates of the moments."
    )
    epsilon: float = Field(
        default=1e-8,
        gt=0,
        description="AdamW's epsilon. Leave it small: 1e-5 ruined LLM-jp's first 172B run.",
    )
    new_rows_first: int = Field(
        default=0,
        ge=0,
        description="Steps at the beginning in which only the rows of a vocabulary stage's new tokens learn.",
    )
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW's weight decay, on matrices only.")
    decay_embeddings: bool = Field(
        default=False, description="Decay input embeddings too (Megatron does; it wears unseen rows away)."
    )
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    spikes: SpikeRule = Field(
        default=SpikeRule(), description="What is done about loss spikes: {action: rewind, threshold: 8, ...}"
    )
    z_loss: float = Field(default=0.0, ge=0, description="Weight of (log Z)^2 in the loss; PaLM: 1e-4.")
    balance_loss: float | None = Field(
        default=None,
        ge=0,
        description="Weight of the load-balancing loss of a mixture of experts (Switch Transformer, arXiv "
        "2101.03961) by balance_convention; by default the model's own router_aux_loss_coef, converted; 0 "
        "with balance_bias.",
    )
    balance_convention: ConventionName = Field(
        default="sequence",
        description="What the load-balancing loss is taken over. A mean over layers, experts_per_token where "
        "the load is even: sequence, layer (a micro-batch), hugging-face (a micro-batch, layers thrown "
        "together). Summed over layers, 1 for each where it is even: megatron (a micro-batch), "
        "megatron-sequence, megatron-global (the batch).",
    )
    balance_bias: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Rate of balancing without a loss: after each step an expert below the mean load gets so "
        "much more bias when experts are chosen, one above it less (arXiv 2408.15664); DeepSeek-V3: 1e-3. "
        "Hugging Face's files have no place for biases: they go into router_bias.json.",
    )
    router_z_loss: float = Field(
        default=0.0,
        ge=0,
        description="Weight of (logsumexp of a router's logits)^2 of a mixture of experts; ST-MoE (arXiv "
        "2202.08906): 1e-3.",
    )
    precision: Precision = Field(
        default="float32",
        description="Type of matrix products; weights and optimizer stay in float32. The float8 recipes are "
        "torchao's, whose names are understood too.",
    )
    float8_high_layers: HighLayers = Field(
        default=HighLayers(),
        description="Layers that stay in bfloat16 under a float8 recipe, as Megatron's "
        "--first-last-layers-bf16: {first: 1, last: 1}.",
    )
    float8_skip_small: bool = Field(
        default=False,
        description="Leave matrices in bfloat16 that are too small for float8 to pay, by torchao's "
        "thresholds.",
    )
    float8_fallback: bool = Field(
        default=True,
        description="Go on in bfloat16 instead of float8 after the training had to be wound back.",
    )
    max_epochs: Weight | dict[str, Weight] = Field(
        default=4.0,
        description="Most passes over any source, or {DOCUMENTS: PASSES}; up to 4 cost little (arXiv "
        "2305.16264).",
    )
    packing: Packing = Field(
        default="concatenate",
        description="How documents fill sequences: end to end, or best-fit: whole where they fit, padded.",
    )
    document_masking: bool = Field(
        default=True, description="Keep tokens from attending to other documents of the same sequence."
    )
    validation: tuple[str, ...] = Field(
        default=(), description="Documents whose held-out part is measured in bits per byte while training."
    )
    domains: dict[str, str] = Field(
        default={},
        description="What kind of text each of `validation` is, such as {wiki-ja: wiki, wiki-en: wiki, "
        "news-ja: news}: a mixture's experts are watched for how far they tell these apart, whatever the "
        "language. A set that is not named is a domain of its own.",
    )
    validation_points: int = Field(
        default=4, ge=1, description="Measurements after the one before the first step, the last at the end."
    )
    validation_bytes: Count = Field(
        default=65536, description="UTF-8 bytes of held-out text of each dataset."
    )
    prompts: tuple[str, ...] = Field(
        default=(), description="Texts that the model goes on from at every measurement."
    )
    prompt_tokens: Count = Field(default=48, description="Most tokens that it writes after a prompt.")
    parallel: Annotated[Parallel, EXECUTION] = Field(
        default=Parallel(), description="Degrees of data, tensor, pipeline and context parallelism."
    )
    micro_batch_tokens: Annotated[Count | None, EXECUTION] = Field(
        default=None,
        description="Tokens that go through the model at once on one device; by default at most 8192.",
    )
    recompute: Annotated[Literal["none", "selective", "full"], EXECUTION] = Field(
        default="none",
        description="Activations that are computed again in the backward pass to save memory: none, all but "
        "matrix products and attention, or all of a layer.",
    )
    compile: Annotated[bool, EXECUTION] = Field(
        default=False,
        description="Compile the layers with torch.compile: fewer passes over memory, which pays on GPUs, "
        "with float8 most; on a CPU a few percent. The first step takes a minute longer.",
    )
    float8_products: Annotated[Literal["auto", "exact", "emulated"], EXECUTION] = Field(
        default="auto",
        description="Multiply float8 numbers as the device does, or emulate it in float32, for tests; auto "
        "emulates on a CPU.",
    )
    float8_measure_every_steps: Annotated[Count, EXECUTION] = Field(
        default=100,
        description="Steps between measurements of how well float8 keeps weights, activations and gradients.",
    )
    float8_min_sqnr: Annotated[float, EXECUTION] = Field(
        default=20.0,
        gt=0,
        description="A signal-to-noise ratio of a rounded operand below this, in dB, is warned of; Gaussian "
        "numbers have 31 dB in E4M3 and 25 in E5M2.",
    )
    checkpoint_every_steps: Annotated[Count, EXECUTION] = Field(
        default=100, description="Steps between checkpoints."
    )
    keep_checkpoints: Annotated[int, EXECUTION] = Field(
        default=2, ge=1, description="How many of the newest checkpoints are kept until the stage is done."
    )
    keep_every_steps: Annotated[Count | None, EXECUTION] = Field(
        default=None,
        description="Steps between checkpoints that are kept for good, in `checkpoints` beside the model.",
    )
    timeout_minutes: Annotated[float, EXECUTION] = Field(
        default=10.0,
        gt=0,
        description="Longest wait of one process for the others in one exchange; then all end with an error.",
    )
    norms_every_steps: Annotated[Count, EXECUTION] = Field(
        default=100, description="Steps between rows of metrics with the norms of each layer."
    )
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], EXECUTION] = Field(
        default=(), description="Who else is told of the metrics: tensorboard, wandb, trackio."
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], EXECUTION] = Field(
        default="auto", description="Where to train; auto takes a GPU where there is one."
    )
    threads: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="CPU threads; by default as many as there are cores."
    )
    hardware: Annotated[str | None, EXECUTION] = Field(
        default=None, description="Device that `plan` reckons with, such as a100-40gb or h100-80gb."
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _precision_may_be_spelled_as_torchao_does(cls, precision: object) -> object:
        return our_name(precision)

    @field_validator("data")
    @classmethod
    def _weights_are_positive(cls, data: dict[str, float]) -> dict[str, float]:
        wrong = [name for name, weight in data.items() if not weight > 0]
        if wrong:
            raise ValueError(f"weights have to be positive numbers; mend {', '.join(wrong)}")
        return data

    @field_validator("warmup")
    @classmethod
    def _warmup_is_whole_or_a_share(cls, warmup: float) -> float:
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError(f"warmup is {warmup}: write a whole number of steps, or a share below 1")
        return int(warmup) if warmup >= 1 else warmup

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if bool(self.data) == bool(self.phases):
            raise ValueError("give either `data` or `phases`, one of the two")
        if self.tokens is not None and self.equal_compute is not None:
            raise ValueError("give either `tokens` or `equal_compute`, one of the two")
        if self.asked_tokens is None and self.equal_compute is None:
            raise ValueError("give either `tokens` or `equal_compute`, one of the two")
        if isinstance(self.max_epochs, dict) and (others := set(self.max_epochs) - set(self.source_names)):
            raise ValueError(f"max_epochs names {', '.join(sorted(others))}, which `data` does not")
        is_new = isinstance(self.model, FromPreset)
        if is_new and self.tokenizer is None:
            raise ValueError("a new model needs `tokenizer: {train: DOCUMENTS, size: N}`")
        if not is_new and self.tokenizer is not None:
            raise ValueError(
                "an existing model has its tokenizer: remove `tokenizer`, or extend it in a stage of its own"
            )
        for name in ("batch_tokens", "micro_batch_tokens"):
            tokens = getattr(self, name)
            if tokens is not None and tokens % self.sequence_length:
                raise ValueError(
                    f"{name} is {tokens}, which is no multiple of sequence_length ({self.sequence_length})"
                )
        if self.end_learning_rate > self.learning_rate:
            raise ValueError("min_learning_rate is above learning_rate")
        return self

    @model_validator(mode="after")
    def _domains_are_of_validation_sets(self) -> Self:
        if others := set(self.domains) - set(self.validation):
            raise ValueError(f"domains names {', '.join(sorted(others))}, which `validation` does not")
        return self

    @model_validator(mode="after")
    def _layers_are_thrown_together_on_one_process(self) -> Self:
        if CONVENTIONS[self.balance_convention].together and self.parallel.pipeline > 1:
            raise ValueError(
                f"balance_convention {self.balance_convention} throws layers together, which pipeline stages "
                "can't: take layer, whose weight is the same, or pipeline: 1"
            )
        return self

    @model_validator(mode="after")
    def _what_is_compiled_lies_on_one_process(self) -> Self:
        parallel = self.parallel
        if self.compile and max(parallel.tensor, parallel.context, parallel.expert) > 1:
            raise ValueError(
                f"compile: true with parallel {parallel.text}: exchanges inside of a layer are not compiled "
                "right (gradients under tensor were wrong with torch 2.13); take data and pipeline, or "
                "compile: false"
            )
        return self

    @model_validator(mode="after")
    def _compiled_layers_choose_what_they_keep(self) -> Self:
        if self.compile and self.recompute == "selective":
            raise ValueError(
                "compile: true and recompute: selective: compiled layers choose by themselves what they "
                "compute again; take recompute: none, or full"
            )
        return self

    @property
    def end_learning_rate(self) -> float:
        """The learning rate of the last step; a 30th of the peak unless given (Swallow: 1e-4 to 3.3e-6)."""
        given = self.min_learning_rate
        return self.learning_rate / MIN_LEARNING_RATE_SHARE if given is None else given

    @property
    def weights(self) -> Weights:
        """What each source's share of the data is: one set of weights, or phases."""
        return self.phases or self.data

    @property
    def source_names(self) -> tuple[str, ...]:
        """The documents that are trained on, in order."""
        return source_names(phases_of(self.weights))

    @property
    def asked_tokens(self) -> int | None:
        """Tokens to train on as the recipe says: `tokens`, or the sum of the phases."""
        if self.tokens is not None or not self.phases or self.equal_compute is not None:
            return self.tokens
        return sum(phase.tokens for phase in self.phases)

    @property
    def sequences_per_step(self) -> int:
        """Sequences of one optimizer step, over all devices."""
        return self.batch_tokens // self.sequence_length

    def identity_payload(self) -> dict[str, Any]:
        """As the base class has it, with `data` as a list, that of each phase too.

        The order of the sources decides which documents each step draws, and a mapping's order is not part
        of canonical JSON.
        """
        payload = super().identity_payload()
        payload["data"] = [[name, weight] for name, weight in self.data.items()]
        payload["phases"] = [
            {**phase.model_dump(mode="json"), "data": [[name, weight] for name, weight in phase.data.items()]}
            for phase in self.phases
        ]
        return payload

    def references(self) -> tuple[Reference, ...]:
        """The model, the documents, and the stage whose compute is to be matched."""
        found = []
        if isinstance(self.model, str):
            found.append(Reference("model", self.model, ArtifactType.MODEL))
        if self.tokenizer is not None:
            found.append(Reference("tokenizer.train", self.tokenizer.train, ArtifactType.DOCUMENTS))
        found += [Reference(f"data.{name}", name, ArtifactType.DOCUMENTS) for name in self.source_names]
        if self.equal_compute is not None:
            found.append(Reference("equal_compute", self.equal_compute, ArtifactType.MODEL))
        found += [Reference("validation", name, ArtifactType.DOCUMENTS) for name in self.validation]
        return tuple(found)


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """What training will take and make: tokens, FLOPs, seconds, memory, disk, and whether the layout fits."""
    from tsugiki.training.planning import forecast

    return forecast(config, inputs)


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Train, and leave a Hugging Face model directory whose logits `transformers` agrees with.

    Raises InputError for inputs that don't fit together, DataError for too little text, StageError where the
    loss is not finite or did not fall, or where the saved model is not what was trained.
    """
    from tsugiki.training.job import train

    return train(config, inputs, out)
