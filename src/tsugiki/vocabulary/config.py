"""What the vocabulary stage reads and makes, and the one place where a vocabulary's size is decided."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tsugiki.artifacts.contract import ArtifactType, Count, Reference, StageConfig


class Distillation(BaseModel):
    """Token Distillation's settings; the defaults are those of its authors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    snippets: Count = Field(default=100, description="Occurrences of each new piece to learn from.")
    tokens: int = Field(default=50, ge=8, description="Length of a snippet in tokens of the base.")
    batch: Count = Field(default=16, description="Snippets a step.")
    epochs: Count = Field(default=1, description="How often every snippet is seen.")
    learning_rate: float = Field(default=1e-4, gt=0, description="Of Adam, at the start; it falls to 0.")


class Config(StageConfig):
    """What the vocabulary stage reads and makes."""

    model: str = Field(description="The model to extend: a stage, a directory, or a Hugging Face hub id.")
    corpus: str = Field(
        description="Documents in the new language; pieces are learnt on their train split. A corpus stage, "
        "or plain files (JSON lines, Parquet, a Hugging Face dataset on disk)."
    )
    add: Count = Field(
        description="New pieces wanted. More are added where the rows would not divide by `multiple_of`."
    )
    doubling_saves: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="With a value, `add` is the most: of it, its half, quarter and eighth, the smallest "
        "number of pieces is taken from which doubling saves less than this share of the held-out tokens.",
    )
    method: Literal["continued", "append"] = Field(
        default="continued",
        description="continued: merges are learnt on the base's own segmentation, as if its training had "
        "gone on. append: a vocabulary is learnt from characters on, as Swallow's, and what the base lacks "
        "and can reach is appended.",
    )
    scores: Literal["keep", "re-estimate"] = Field(
        default="keep",
        description="Of a Unigram tokenizer. keep: old scores stay, so text without new pieces keeps its ids "
        "and logits; the new pieces' are estimated by EM. re-estimate: all are, as LLM-jp did; old text may "
        "be cut anew.",
    )
    keep_words: bool = Field(
        default=False,
        description="Keep pieces within words as the segmenter cuts them that the language pack names. For "
        "languages without spaces; needs the extra that the pack's segmenter comes with.",
    )
    initialise: Literal["subtoken-mean", "frequency-weighted-mean", "distillation", "random"] = Field(
        default="subtoken-mean",
        description="New rows of both embeddings: the mean of a piece's old parts' rows, the same with "
        "frequent parts counting less, rows that do in the base what the parts did (Token Distillation, "
        "arXiv 2505.20133), or random ones.",
    )
    distillation: Distillation = Field(
        default=Distillation(), description="How rows are distilled, where `initialise` says so."
    )
    multiple_of: int = Field(
        default=8,
        gt=0,
        description="The number of rows will divide by this (Swallow: 8, for 8 tensor-parallel devices). "
        "More pieces are learnt rather than rows left empty.",
    )
    minimum_count: int = Field(
        default=2, gt=0, description="A new piece's last merge has to occur this often in the documents."
    )
    max_piece_characters: int = Field(
        default=16,
        gt=0,
        le=256,
        description="The longest new piece in characters (sentencepiece's default: 16).",
    )
    ascii_pieces: Literal["auto", "keep", "drop"] = Field(
        default="auto",
        description="Whether new pieces may be ASCII alone. With drop, all ASCII text (English, code) keeps "
        "its tokens. auto: keep if most letters of the documents are ASCII.",
    )
    sample: Count = Field(
        default=20_000_000,
        description="Characters to learn and measure on; of a larger corpus an even sample is taken.",
    )
    measure: tuple[str, ...] = Field(
        default=(),
        description="Further documents on which tokens before and after are counted (held-out split).",
    )

    def references(self) -> tuple[Reference, ...]:
        """The model, the documents to learn on, and those to measure on."""
        return (
            Reference("model", self.model, ArtifactType.MODEL),
            Reference("corpus", self.corpus, ArtifactType.DOCUMENTS),
            *(
                Reference(f"measure.{place}", name, ArtifactType.DOCUMENTS)
                for place, name in enumerate(self.measure)
            ),
        )


def final_rows(rows: int, add: int, multiple_of: int) -> int:
    """Rows of the extended embedding: at least `rows` + `add`, and a multiple of `multiple_of`."""
    return -(-(rows + add) // multiple_of) * multiple_of


def size_ladder(largest: int) -> list[int]:
    """Numbers of pieces to draw the curve of savings by: `largest`, its half, quarter and eighth, rising."""
    return sorted({max(1, largest >> halvings) for halvings in range(4)})
