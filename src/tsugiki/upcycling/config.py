"""What the upcycling stage reads."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tsugiki.artifacts.contract import EXECUTION, ArtifactType, Reference, StageConfig

Method = Literal["drop", "naive", "noise", "branch-train-mix"]
RouterStart = Literal["rand", "rand-mean0", "normal-0.02", "normal-0.289", "rand-mean0-0.02"]
Scaling = Literal["exact", "cube-root", "none"]
SharedExpert = Literal["none", "copy", "slices"]


class Config(StageConfig):
    """What the upcycling stage reads and makes: a mixture of experts from a dense model."""

    model: str = Field(description="The dense model: a stage, a directory, or a Hugging Face hub id.")
    method: Method = Field(
        default="drop",
        description="drop: Drop-Upcycling (arXiv 2502.19261), a share of every expert's neurons is drawn "
        "anew. naive: plain copies. noise: copies with noise added to a share of the neurons. "
        "branch-train-mix: experts from several dense models, all other weights averaged.",
    )
    num_experts: int = Field(default=8, ge=1, description="Experts of a layer.")
    experts_per_token: int = Field(default=2, ge=1, description="Experts that a token goes through.")
    ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="drop, noise: the share of an expert's neurons that is changed; floor(ratio x width) of "
        "them. With 0 the model computes what the dense one did; with 1 no neuron is kept.",
    )
    shared_indices: bool = Field(
        default=True,
        description="drop, noise: one set of neurons for gate, up and down, as the paper says. With false a "
        "set for each matrix, as the released code does: (1 - ratio)^3 of the neurons stay whole.",
    )
    noise_std: float = Field(
        default=0.02, gt=0, description="noise: standard deviation of what is added (the released code's)."
    )
    models: tuple[str, ...] = Field(
        default=(),
        description="branch-train-mix: further dense models of the same shape and vocabulary. `model` gives "
        "the first experts, each of these the next; every model gives equally many.",
    )
    router: RouterStart = Field(
        default="rand-mean0-0.02",
        description="How routers begin: uniform in [0, 1), the same less its mean, normal with deviation "
        "0.02 or 0.289, or (what all released models have) uniform with mean 0 and deviation 0.02.",
    )
    granularity: int = Field(
        default=1,
        ge=1,
        description="Fine-grained experts: every copy of the feed-forward is cut into so many experts of a "
        "width of 1/granularity, whose router rows begin alike, so that whole copies are chosen at first "
        "(arXiv 2410.07524). num_experts and experts_per_token count the small experts.",
    )
    shared_expert: SharedExpert = Field(
        default="none",
        description="An expert that every token goes through beside the chosen ones (Qwen2-MoE's layout; for "
        "Llama, Mistral and Qwen2). Its neurons are the dense model's, none is changed; its gate begins with "
        "weights 0, so at 1/2 for every token. copy: all of the feed-forward; it and the chosen experts give "
        "half of the output each. slices: the first `shared_slices` of the `granularity` slices; only the "
        "others are copied to experts that are chosen.",
    )
    shared_slices: int = Field(
        default=1,
        ge=1,
        description="shared_expert: slices: so many of the `granularity` slices every token goes through.",
    )
    scaling: Scaling = Field(
        default="exact",
        description="granularity > 1, shared_expert: weights are scaled so that all parts of the feed-"
        "forward add up again. exact: up and down by two factors (of plain slices, their product is "
        "`granularity`); the function is kept. cube-root: gate, up and down by the product's cube root, as "
        "the paper and Megatron-Core; with SiLU the function is not kept. none: it is not kept either.",
    )
    layers: Literal["all"] | tuple[int, ...] = Field(
        default="all",
        description="Layers (from 0) that become mixtures; the others stay dense. Not for the target "
        "mixtral, which has no dense layers.",
    )
    target: Literal["auto", "mixtral", "qwen2-moe", "qwen3-moe"] = Field(
        default="auto",
        description="Layout of the result. auto: the one that computes what the dense model's family does: "
        "Mixtral for Llama and Mistral, Qwen3-MoE for Qwen3; with a shared expert Qwen2-MoE for Llama, "
        "Mistral (biases of 0 are added to queries, keys and values) and Qwen2.",
    )
    balance_coefficient: float = Field(
        default=0.02,
        ge=0,
        description="Weight of the load-balancing loss, written to config.json for whoever trains (the "
        "paper's: 0.02, of the loss over all layers together).",
    )
    draws: Literal["independent", "released"] = Field(
        default="independent",
        description="independent: every layer, expert and matrix has a seed of its own. released: one stream "
        "in the order of the released code, which also shuffles neurons; one thread.",
    )
    workers: Annotated[int, EXECUTION] = Field(
        default=2, ge=1, description="Threads; the result does not depend on their number."
    )

    def references(self) -> tuple[Reference, ...]:
        """The dense model, and those that are mixed with it."""
        return (
            Reference("model", self.model, ArtifactType.MODEL),
            *(
                Reference(f"models.{place}", name, ArtifactType.MODEL)
                for place, name in enumerate(self.models)
            ),
        )

    @property
    def slices_kept_back(self) -> int:
        """Slices of the feed-forward that no chosen expert begins with: the shared expert's own."""
        return self.shared_slices if self.shared_expert == "slices" else 0

    @property
    def copy_experts(self) -> int:
        """So many experts in succession hold the slices of one copy of the feed-forward."""
        return self.granularity - self.slices_kept_back

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        said = [message for wrong, message in _contradictions(self) if wrong]
        if said:
            raise ValueError("; ".join(said))
        return self


def _contradictions(config: Config) -> list[tuple[bool, str]]:
    sources = 1 + len(config.models)
    mixing = config.method == "branch-train-mix"
    return [
        (
            config.experts_per_token > config.num_experts,
            f"experts_per_token is {config.experts_per_token}, more than all {config.num_experts} experts",
        ),
        (mixing != bool(config.models), "`models` and the method branch-train-mix need each other"),
        (
            mixing and config.num_experts % sources != 0,
            f"{config.num_experts} experts can't come evenly from {sources} models",
        ),
        *_contradictions_of_slices(config),
        (
            config.layers != "all" and len(set(config.layers)) != len(config.layers),
            "a layer is named twice in `layers`",
        ),
        (config.layers == (), "`layers` names no layer"),
    ]


def _contradictions_of_slices(config: Config) -> list[tuple[bool, str]]:
    grain, copy, shared = config.granularity, config.copy_experts, config.shared_expert != "none"
    drawn_so = config.method in {"drop", "noise"} and not config.shared_indices
    if copy < 1:
        none_left = (
            f"shared_slices {config.shared_slices} leaves none of the {grain} slices (granularity) for the "
            "experts that are chosen"
        )
        return [(True, none_left)]
    kept_back = f" less {config.shared_slices} shared" if copy < grain else ""
    not_whole = (
        f"granularity {grain}{kept_back} has to divide num_experts and experts_per_token: whole copies are "
        "chosen"
    )
    not_released = (
        "draws: released needs shared_indices: false, granularity 1, no shared expert, and the method drop "
        "or noise"
    )
    return [
        (
            config.num_experts % copy != 0 or config.experts_per_token % copy != 0,
            not_whole,
        ),
        (
            config.method == "branch-train-mix" and grain > 1,
            "branch-train-mix can't be combined with granularity",
        ),
        (
            config.draws == "released" and (grain > 1 or shared or not drawn_so),
            not_released,
        ),
        (
            config.shared_slices > 1 and config.shared_expert != "slices",
            "`shared_slices` is of use with shared_expert: slices only",
        ),
        (
            config.target != "auto" and shared != (config.target == "qwen2-moe"),
            "a shared expert and the target qwen2-moe need each other",
        ),
    ]
