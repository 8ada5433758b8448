"""The parts of the train stage's Config that are small models of their own."""

from __future__ import annotations

from math import prod
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tsugiki.artifacts.contract import Count


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

    def overrides(self) -> dict[str, Any]:
        """The parts of the shape that were given, by `DecoderConfig`'s names."""
        return self.model_dump(exclude={"preset"}, exclude_none=True)


class TokenizerTraining(BaseModel):
    """A byte-level BPE tokenizer trained on the training split of documents."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    train: str = Field(description="Documents to train the tokenizer on.")
    size: Count = Field(description="Entries of the vocabulary, bytes and special tokens included.")


class Parallel(BaseModel):
    """Degrees of parallelism; their product is the number of processes (one a device)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: int = Field(default=1, ge=1, description="Copies of the model that share each batch.")
    tensor: int = Field(default=1, ge=1, description="Processes that share each matrix.")
    pipeline: int = Field(default=1, ge=1, description="Processes that share the layers.")
    context: int = Field(default=1, ge=1, description="Processes that share each sequence.")

    @property
    def product(self) -> int:
        """How many processes there are: the world size."""
        return prod((self.data, self.tensor, self.pipeline, self.context))
