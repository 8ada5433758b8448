"""The parts of the train stage's Config that are small models of their own."""

from __future__ import annotations

from math import prod
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tsugiki.artifacts.contract import Count
from tsugiki.planner.layout import divisors


class FromPreset(BaseModel):
    """A new model, from a named shape; what is given beside the name replaces that part of the shape."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    preset: str = Field(description="Name of a shape, such as llama-mini or llama-2-7b.")
    hidden_size: int | None = Field(default=None, gt=0, description="Width of the residual stream.")
    intermediate_size: int | None = Field(default=None, gt=0, description="Width of the feed-forward layers.")
    layers: int | None = Field(default=None, gt=0, description="Number of layers.")
    heads: int | None = Field(default=None, gt=0, description="Number of query heads.")
    kv_heads: int | None = Field(default=None, gt=0, description="Number of key-value heads.")
    head_dim: int | None = Field(default=None, gt=0, description="Dimension of one head.")
    max_positions: int | None = Field(default=None, gt=0, description="Longest sequence, in tokens.")
    tied_embeddings: bool | None = Field(
        default=None, description="One matrix for embedding and output head."
    )
    initializer_std: float | None = Field(
        default=None, gt=0, description="Standard deviation of new weights."
    )
    spike_no_more: bool = Field(
        default=False,
        description="Small initialisation and scaled embedding, which keep spikes away (arXiv 2312.16903).",
    )

    @model_validator(mode="after")
    def _one_initialisation(self) -> Self:
        if self.spike_no_more and self.initializer_std is not None:
            raise ValueError("spike_no_more says what initializer_std is: give one of the two")
        return self

    def overrides(self) -> dict[str, Any]:
        """The parts of the shape that were given, by `DecoderConfig`'s names."""
        return self.model_dump(exclude={"preset", "spike_no_more"}, exclude_none=True)


class TokenizerTraining(BaseModel):
    """A byte-level BPE tokenizer trained on the training split of documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: str = Field(description="Documents to train the tokenizer on.")
    size: Count = Field(description="Entries of the vocabulary, bytes and special tokens included.")


class SpikeRule(BaseModel):
    """What counts as a loss spike, and what is done about it; see `tsugiki.training.spikes`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    action: Literal["rewind", "stop", "ignore"] = Field(
        default="rewind",
        description="rewind: go back to a checkpoint from before it, and leave out the data (PaLM's way); "
        "stop: end with an error; ignore: only losses that are not finite end the run.",
    )
    threshold: float = Field(
        default=8.0, gt=0, description="Robust standard deviations above the median of recent losses."
    )
    window: int = Field(default=128, ge=8, description="Recent losses that are compared with.")
    patience: int = Field(default=3, ge=1, description="High losses in a row that make a spike.")
    skip_steps: int = Field(
        default=200, ge=1, description="Most steps whose data are left out at a time (PaLM: 200 to 500)."
    )
    most: int = Field(default=5, ge=0, description="How often data are left out before the run ends.")

    def spare_steps(self, steps: int) -> int:
        """Steps of data to hold ready beyond the schedule of `steps` steps."""
        return self.most * min(self.skip_steps, steps) if self.action == "rewind" else 0


class HighLayers(BaseModel):
    """How many layers at both ends of a decoder stay in bfloat16 where the others are in float8."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    first: int = Field(default=1, ge=0, description="Layers next to the embedding.")
    last: int = Field(default=1, ge=0, description="Layers next to the head.")


class Parallel(BaseModel):
    """Degrees of parallelism; their product is the number of processes (one a device)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: int = Field(default=1, ge=1, description="Parts that each batch is cut into.")
    shard: int | None = Field(
        default=None,
        ge=1,
        description="Over how many of the `data` processes weights are spread (FSDP); all unless given, 1 "
        "keeps a whole copy on each.",
    )
    tensor: int = Field(default=1, ge=1, description="Processes that share each matrix and the sequence.")
    pipeline: int = Field(default=1, ge=1, description="Processes that share the layers.")
    context: int = Field(default=1, ge=1, description="Processes that share each sequence.")
    expert: int = Field(
        default=1,
        ge=1,
        description="Over how many of the data x context processes the experts of a mixture are spread; no "
        "further processes.",
    )
    schedule: Literal["1f1b", "gpipe", "interleaved"] = Field(
        default="1f1b", description="Order of a pipeline's work on micro-batches."
    )
    chunks: int = Field(
        default=1, ge=1, description="Stages that each process of an interleaved pipeline holds."
    )

    @model_validator(mode="after")
    def _degrees_fit_together(self) -> Self:
        if self.data % self.shards:
            fitting = divisors(self.data, self.data)
            raise ValueError(
                f"shard is {self.shard}, which does not divide data ({self.data}); degrees that do: "
                f"{', '.join(map(str, fitting))}"
            )
        if self.expert not in self.expert_degrees:
            raise ValueError(
                f"expert is {self.expert}, which does not divide the {self.data * self.context} data x "
                f"context processes, over {self.shards * self.context} of which weights are spread; degrees "
                "that do: "
                f"{', '.join(map(str, self.expert_degrees))}"
            )
        if (self.schedule == "interleaved") != (self.chunks > 1):
            raise ValueError("schedule: interleaved needs chunks of 2 or more, and the others chunks: 1")
        return self

    @property
    def shards(self) -> int:
        """Over how many data-parallel processes weights are spread."""
        return self.data if self.shard is None else self.shard

    @property
    def expert_degrees(self) -> list[int]:
        """The degrees of expert parallelism that the other degrees allow.

        They divide the data x context processes, and divide or are a multiple of those among them over which
        weights are spread.
        """
        processes, spread = self.data * self.context, self.shards * self.context
        return [
            degree
            for degree in range(1, processes + 1)
            if processes % degree == 0 and (spread % degree == 0 or degree % spread == 0)
        ]

    @property
    def product(self) -> int:
        """How many processes there are: the world size."""
        return prod((self.data, self.tensor, self.pipeline, self.context))

    @property
    def text(self) -> str:
        """The degrees above 1, for a person."""
        names = ("data", "tensor", "pipeline", "context", "expert")
        degrees = {name: getattr(self, name) for name in names}
        return (
            " x ".join(f"{name} {degree}" for name, degree in degrees.items() if degree > 1) or "one process"
        )
