"""`--scale mini`: any recipe, a paper's too, as one that a laptop replays in minutes.

The graph stays as it is; only sizes shrink and what is not on this machine is replaced:
- amounts are capped by the table CAPS (tokens, sequence length, batch, new vocabulary, ...);
- corpora read the sample crawl of examples/crawl, in their own language; several corpora of one language
  read different files of it, so that what one holds out is not what another trains on;
- a corpus in a language of which the sample holds no more than a few pages reads the English ones;
- a new model of any size becomes llama-mini, with a small vocabulary;
- a base model from the hub becomes a stage `mini-base`: llama-mini, trained from scratch on the sample's
  pages of another language than the recipe's;
- parallel layouts become one process, thresholds that depend on size go away.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tsugiki.artifacts.contract import parse_count
from tsugiki.errors import Problem, RecipeError

SAMPLE = "examples/crawl/*.warc.gz"
BASE = "mini-base"
BASE_LANGUAGE = "en"
SAMPLE_LANGUAGES = frozenset({"ja", "en"})
"""Languages of which the sample crawl holds hundreds of pages (examples/crawl/README.md)."""
MINI_MODEL = "llama-mini"
SMALL_MODELS = ("-nano", "-mini")
"""How presets are called that a laptop trains as they are."""
MINI_VOCABULARY = 2048

CAPS: Mapping[str, Mapping[str, float]] = {
    "corpus": {},
    "vocabulary": {"add": 512},
    "train": {
        "tokens": 100_000,
        "sequence_length": 128,
        "batch_tokens": 2048,
        "warmup": 5,
        "validation_points": 4,
    },
    "evaluate": {"maximum_documents": 8, "cloze_items": 16, "generation_prompts": 2, "bootstrap_draws": 1000},
}
"""The largest value that a field keeps at mini scale."""

DROPPED: Mapping[str, frozenset[str]] = {
    "corpus": frozenset({"workers", "expected"}),
    "vocabulary": frozenset({"minimum_count", "multiple_of", "distillation", "initialise"}),
    "upcycle": frozenset({"workers"}),
    "train": frozenset(
        {
            "parallel",
            "micro_batch_tokens",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "keep_every_steps",
            "timeout_minutes",
            "device",
            "threads",
            "hardware",
        }
    ),
    "evaluate": frozenset({"batch_tokens", "device", "context_length", "stride"}),
}
"""Fields that speak of large machines or large data; at mini scale their defaults serve."""

REHEARSAL = (
    "(Rehearsed at mini scale: it shows that the recipe runs; its scores say nothing of the real run.)"
)
HELD_OUT = 0.15
MAXIMUM_EPOCHS = 50
PEAK_LEARNING_RATE = 2e-3
"""Small models want larger steps: the papers' peaks (1e-4 and less) would hardly move a model this size."""


def miniature(data: Mapping[str, Any], path: Path) -> Any:
    """The recipe's data at mini scale (a copy; line positions are kept for messages).

    Raises RecipeError where the sample crawl is not at hand.
    """
    from tsugiki.artifacts.contract import ArtifactType, Reference
    from tsugiki.workflow.sources import find_source

    sample = find_source(Reference("source", SAMPLE, ArtifactType.FILES), path)
    if sample is None:
        message = f"--scale mini reads the sample crawl, and {SAMPLE} is not here"
        raise RecipeError([Problem(message, "work in a checkout of Tsugiki: `git clone`, then cd into it")])
    mini: Any = copy.deepcopy(data)
    stages = mini.get("stages")
    if not isinstance(stages, dict):
        return mini
    bodies = {name: body for name, body in stages.items() if isinstance(body, dict)}
    for body in bodies.values():
        _shrink(body)
    _replace_base_models(stages, bodies, str(mini.get("language", "")))
    _share_sample(stages, [file.name for file in sample.paths])
    mini["description"] = f"{str(mini.get('description', '')).strip()} {REHEARSAL}".strip()
    return mini


def _share_sample(stages: Mapping[str, Any], files: list[str]) -> None:
    """Deal the files of the sample out among the corpora of each language."""
    corpora = [body for body in stages.values() if isinstance(body, dict) and body.get("kind") == "corpus"]
    for language in {str(body.get("language")) for body in corpora}:
        sharing = [body for body in corpora if str(body.get("language")) == language]
        for number, body in enumerate(sharing):
            mine = files[number :: len(sharing)] or files
            body["source"] = [f"{SAMPLE.rsplit('/', 1)[0]}/{name}" for name in mine]


def _shrink(body: dict[str, Any]) -> None:
    kind = str(body.get("kind"))
    for field in DROPPED.get(kind, ()):
        body.pop(field, None)
    for field, cap in CAPS.get(kind, {}).items():
        if field in body:
            body[field] = _capped(body[field], cap)
    if kind == "corpus":
        body["source"] = SAMPLE
        body["heldout"] = HELD_OUT
        if body.get("language") not in SAMPLE_LANGUAGES:
            body["language"] = BASE_LANGUAGE
    if kind == "evaluate" and "data" in body:
        body["data"] = "sample"  # the benchmarks' files need not be on a laptop
    if kind == "train":
        body["max_epochs"] = MAXIMUM_EPOCHS
        if "phases" in body and not {"tokens", "equal_compute"} & set(body):
            body["tokens"] = int(CAPS[kind]["tokens"])  # phases keep the ratios of their tokens
        _raise_learning_rate(body)
        _shrink_new_model(body)


def _shrink_new_model(body: dict[str, Any]) -> None:
    model, tokenizer = body.get("model"), body.get("tokenizer")
    if isinstance(model, dict) and not str(model.get("preset")).endswith(SMALL_MODELS):
        body["model"] = {"preset": MINI_MODEL}
    if isinstance(tokenizer, dict) and "size" in tokenizer:
        body["tokenizer"] = {**tokenizer, "size": _capped(tokenizer["size"], MINI_VOCABULARY)}


def _capped(value: Any, cap: float) -> Any:
    try:
        number = parse_count(value)
    except ValueError:
        return value  # not a count: validation will say so
    if isinstance(number, bool) or not isinstance(number, int | float):
        return value
    return type(number)(min(number, cap))


def _raise_learning_rate(body: dict[str, Any]) -> None:
    """Scale peak and floor together, so that the schedule keeps its shape."""
    peak = body.get("learning_rate")
    if isinstance(peak, float) and 0 < peak < PEAK_LEARNING_RATE:
        factor = PEAK_LEARNING_RATE / peak
        body["learning_rate"] = PEAK_LEARNING_RATE
        floor = body.get("min_learning_rate")
        if isinstance(floor, float):
            body["min_learning_rate"] = floor * factor


def _replace_base_models(stages: Any, bodies: Mapping[str, Any], language: str) -> None:
    """Let every outside model be `mini-base`, a stage put in front."""
    outside = [body for body in bodies.values() if _names_outside_model(body, stages)]
    listed = [body for body in bodies.values() if isinstance(body.get("models"), list)]
    if not outside and not any(name not in stages for body in listed for name in body["models"]):
        return
    for body in outside:
        body["model"] = BASE
    for body in listed:
        body["models"] = list(dict.fromkeys(name if name in stages else BASE for name in body["models"]))
    corpora = {name: body.get("language") for name, body in bodies.items() if body.get("kind") == "corpus"}
    source = next((name for name, spoken in corpora.items() if spoken != language), None)
    if source is None:
        source = "mini-english"
        stages[source] = {"kind": "corpus", "source": SAMPLE, "language": BASE_LANGUAGE, "heldout": HELD_OUT}
    stages[BASE] = {
        "kind": "train",
        "model": {"preset": MINI_MODEL},
        "tokenizer": {"train": source, "size": MINI_VOCABULARY},
        "data": {source: 1.0},
        "tokens": 200_000,
        "sequence_length": 128,
        "batch_tokens": 2048,
        "learning_rate": PEAK_LEARNING_RATE,
        "max_epochs": MAXIMUM_EPOCHS,
    }


def _names_outside_model(body: Mapping[str, Any], stages: Mapping[str, Any]) -> bool:
    return isinstance(body.get("model"), str) and body["model"] not in stages
