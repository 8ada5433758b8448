"""What a task's YAML file may say. Unknown keys are errors.

A task has base `settings` and `defects`: named switches. Each defect says what the published run did and
what is right; `published` and `corrected` are patches of the settings. The variant "published" is the
settings with all published patches, "corrected" with all corrected ones. A defect of `effect: score` needs no
patch: both numbers are computed from the same answer (`scores.score` and `scores.published`).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Variant = Literal["corrected", "published"]
VARIANTS: tuple[Variant, ...] = ("corrected", "published")

CORRECTED_SCORE = "score"
PUBLISHED_SCORE = "published"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f'"{pattern}" is not a regular expression: {error}'
        raise ValueError(message) from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class Origin(_Strict):
    """A place that has a split's files.

    Either a GitHub `repository` with `files` at a `commit` (by default the manifest's), or a dataset `hub` id
    with globs of its Parquet files, or neither: files that a person puts into the folder of the task's name.
    format: a loader (sources.LOADERS). columns: for `format: rows`, record field -> column ("answers.text").
    """

    format: str
    files: tuple[str, ...] = Field(min_length=1)
    repository: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+(/[\w.-]+)?$")
    revision: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Origin:
        if self.repository and self.hub:
            message = "an origin is a GitHub repository or a hub dataset, not both"
            raise ValueError(message)
        return self


class Shots(_Strict):
    """Worked examples before the question.

    choice: how they are chosen (shots.py). split: where from. extra: how many more are drawn, so that the
    item itself can be left out.
    """

    count: int = Field(ge=0, le=64)
    choice: Literal["first", "processed_train", "lm_eval", "jp_harness", "subject", "written"] = "first"
    split: str = "train"
    extra: int = Field(default=0, ge=0)


class Extract(_Strict):
    """How an answer is taken out of a text; the steps are applied in this order (extraction.py).

    before: the text ends before this. strip: white space around it goes. nfkc: Unicode compatibility form.
    pattern: a regular expression; its first non-empty group (or the whole match) is taken, of the first or
    the last match, or `fallback` where nothing matches.
    """

    before: str | None = None
    strip: bool = False
    nfkc: bool = False
    pattern: Pattern | None = None
    take: Literal["first", "last"] = "first"
    fallback: str = ""


class Score(_Strict):
    """One number of an item. metric: a name of scoring.METRICS.

    references: all golds or the first one only. none: what is right where there is no gold (SQuAD2). only:
    the number is computed of items with gold, or of those without. extract: applied to the prediction.
    """

    metric: str
    references: Literal["all", "first"] = "all"
    none: str | None = None
    only: Literal["all", "answerable", "unanswerable"] = "all"
    extract: str | None = None


class Generation(_Strict):
    """How text is written.

    maximum_tokens: a cap in the model's own tokens, as published runs had them; "gold + 10": as many as the
    reference has, and ten (published XL-Sum); "1024 - prompt": prompt and answer together have 1,024, the
    beginning-of-sequence token included (published HumanEval). samples: how many for each item. temperature:
    None is greedy.
    """

    stops: tuple[str, ...] = ()
    maximum_bytes: int = Field(gt=0)
    maximum_tokens: int | Literal["gold + 10", "1024 - prompt"] | None = None
    samples: int = Field(default=1, ge=1, le=200)
    temperature: float | None = Field(default=None, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)


class Cut(_Strict):
    """A field that is shortened by whole sentences until it takes at most so many bytes in UTF-8."""

    field: str
    sentence_end: str
    maximum_bytes: int = Field(gt=0)


class Fit(_Strict):
    """How a prompt was made to fit into each model's own window (fitting.py).

    by: leave examples out, or cut the sentences of every long text. before: where in `query` the part begins
    that is never cut.
    """

    by: Literal["examples", "sentences"]
    before: str = ""
    sentence_end: str = ""


class Settings(_Strict):
    """How questions are put and scored.

    answer: generate (write text), choose (which option follows the context), contexts (which context the
    text follows), code (write a program, run its tests). Templates have {field}, {field.0} for a list.
    The prompt is preamble + examples and question joined by `separator`; an example is query + delimiter +
    target, or the template `example`. options: the texts that are compared: a template with {choice} for each
    of the record's `choices`, or plain labels. label: the field that holds the right option's number.
    references: the field that holds gold answers. likelihood: a text whose probability after the prompt is
    reported (SQuAD2's "unanswerable"). fit: what is done about prompts that a model's window can't hold; by
    default their left is cut off.
    """

    answer: Literal["generate", "choose", "contexts", "code"]
    preamble: str = ""
    query: str
    target: str
    example: str | None = None
    separator: str = "\n\n"
    delimiter: str = ""
    shots: Shots
    options: str | tuple[str, ...] | None = None
    label: str | None = None
    references: str | None = None
    likelihood: str | None = None
    generation: Generation | None = None
    cut: Cut | None = None
    fit: Fit | None = None
    extracts: dict[str, Extract] = Field(default_factory=dict)
    scores: dict[str, Score] = Field(default_factory=dict)
    corpus: str | None = Field(default=None, description="A corpus metric whose sums the rows hold.")
    seconds: float = Field(default=3.0, gt=0, description="Time that a program's tests may take.")

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        if self.answer in {"generate", "code"} and self.generation is None:
            message = f"answer: {self.answer} needs `generation`"
            raise ValueError(message)
        if self.answer in {"choose", "contexts"} and (self.options is None or self.label is None):
            message = f"answer: {self.answer} needs `options` and `label`"
            raise ValueError(message)
        if self.answer == "generate" and (self.references is None or CORRECTED_SCORE not in self.scores):
            message = "answer: generate needs `references` and a score called `score`"
            raise ValueError(message)
        if self.fit is not None and (self.fit.before and self.query.count(self.fit.before) != 1):
            message = f'`fit` cuts before "{self.fit.before}", which has to stand once in `query`'
            raise ValueError(message)
        for name, score in self.scores.items():
            if score.extract is not None and score.extract not in self.extracts:
                message = f'the score "{name}" uses the extract "{score.extract}", which is not there'
                raise ValueError(message)
        return self


class Defect(_Strict):
    """A known fault of the published numbers. effect: of what is asked, of the score, of the harness."""

    description: str
    reference: str
    effect: Literal["prompt", "score", "environment"]
    published: dict[str, Any] = Field(default_factory=dict)
    corrected: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _patched(self) -> Defect:
        if (self.effect == "prompt") != bool(self.published or self.corrected):
            message = "a defect of effect: prompt has patches, and no other has"
            raise ValueError(message)
        return self


class Cluster(_Strict):
    """Items that are not independent: `field` of the record, `name` for the reader."""

    field: str
    name: str


class Content(_Strict):
    """What is looked for in training documents: templates of a question and of its gold, without a prompt."""

    question: str
    answer: str = ""


class TaskSpec(_Strict):
    """A whole task. items: how many there are in the full data, None where that is not known for sure."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    group: Literal["nineteen", "beside", "safety", "own"] = "nineteen"
    title: str
    language: str
    metric: str
    licence: str
    redistributable: bool
    items: int | None
    chance: float | None = Field(default=None, ge=0, le=1)
    cluster: Cluster | None = None
    subjects: tuple[str, ...] = ()
    parts: Literal["", "jmmlu"] = ""
    test: str = "test"
    splits: dict[str, tuple[Origin, ...]]
    content: Content | None = None
    settings: Settings
    defects: dict[str, Defect] = Field(default_factory=dict)
    notes: str = ""

    @model_validator(mode="after")
    def _splits_are_there(self) -> TaskSpec:
        if self.test not in self.splits:
            message = f'the test split "{self.test}" is not among the splits'
            raise ValueError(message)
        return self

    @property
    def differs(self) -> bool:
        """Whether the published run asked something else than the corrected one."""
        return any(defect.effect == "prompt" for defect in self.defects.values())
