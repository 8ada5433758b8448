"""The `evaluate` stage: what models score on the same held-out pages, and which differences are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

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
from tsugiki.errors import did_you_mean

if TYPE_CHECKING:
    from tsugiki.evaluation.runner import Questions, Unit
    from tsugiki.evaluation.tasks.base import PageTask

KIND = "evaluate"
PRODUCES = ArtifactType.SCORES
CODE_VERSION = 4

PAGE_TASKS = ("bits-per-byte", "cloze", "generation")
"""Tasks that are made of held-out pages, in any language; all others are benchmarks (benchmarks/)."""


class Config(StageConfig):
    """Score models on held-out pages (bits per byte, next sentences, generations) and on benchmarks."""

    models: tuple[str, ...] = Field(
        min_length=1,
        description="Models to score: stages, directories, hub ids, or addresses of OpenAI-style servers as "
        "http://host:8000/v1#model. The first is the baseline.",
    )
    baseline: str | None = Field(
        default=None, description="The model that others are compared with; by default the first of `models`."
    )
    heldout: tuple[str, ...] = Field(
        default=(), description="Documents whose held-out pages are the questions; one dataset each."
    )
    tasks: tuple[str, ...] = Field(
        default=PAGE_TASKS,
        min_length=1,
        description="What to measure: bits-per-byte, cloze and generation of held-out pages; benchmarks by "
        "name (`tsugiki evaluate tasks` lists them), by name@published, or as YAML files.",
    )
    texts: tuple[str, ...] = Field(
        default=(),
        description="Texts for bits-per-byte beside the held-out pages: globs of .txt, .jsonl (with `text`) "
        "or .parquet files; one dataset each.",
    )
    data: Annotated[str | None, EXECUTION] = Field(
        default=None,
        description="Folder with the benchmarks' files (`tsugiki evaluate fetch` fills one), or the word "
        "sample for the few items that come with Tsugiki.",
    )
    maximum_items: Count | None = Field(default=None, description="Items of each benchmark, at most.")
    variant: Literal["corrected", "published"] = Field(
        default="corrected",
        description="Benchmarks without the known faults of the published runs, or with them.",
    )
    accept_hashes: Annotated[tuple[str, ...], EXECUTION] = Field(
        default=(),
        description="First 16 digits of the SHA-256 of files that are taken although others are pinned.",
    )
    maximum_documents: Count = Field(default=1000, description="Held-out pages of each dataset, at most.")
    document_bytes: Count = Field(
        default=16384, description="UTF-8 bytes of a page that are read; so no page outweighs the rest."
    )
    cloze_items: Count = Field(default=200, description="Next-sentence questions for each dataset, at most.")
    cloze_choices: int = Field(default=4, ge=2, le=16, description="Choices of each question.")
    generation_prompts: Count = Field(default=8, description="Prompts for each dataset.")
    generation_bytes: Count = Field(
        default=240, description="UTF-8 bytes written for each prompt, at most: about 80 Japanese characters."
    )
    bootstrap_draws: Count = Field(default=10_000, description="Draws of the cluster bootstrap.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Confidence of the intervals.")
    context_length: int | None = Field(
        default=None,
        ge=8,
        description="Window in tokens; by default the shortest that any of the models was trained on.",
    )
    stride: int | None = Field(
        default=None,
        ge=1,
        description="Tokens scored by each further window; by default three quarters of the window.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Type of weights and matrix products; likelihoods are summed in float64.",
    )
    boundary: Literal["joined", "context"] = Field(
        default="joined",
        description="Where an option begins in tokens: where it differs from the context alone, or, as in "
        "lm-evaluation-harness, behind as many tokens as the context has alone.",
    )
    maximum_error_share: float = Field(
        default=0.01,
        ge=0,
        lt=1,
        description="Share of a task's items that may stay without an answer; above it the stage fails.",
    )
    concurrency: Annotated[Count, EXECUTION] = Field(
        default=16, description="Requests to a server that are under way at a time."
    )
    server_likelihoods: Annotated[Literal["echo", "prompt_logprobs"], EXECUTION] = Field(
        default="echo", description="How a server is asked for the likelihoods of a prompt."
    )
    server_key: Annotated[str | None, EXECUTION] = Field(
        default=None, description="File that holds the key of the servers."
    )
    batch_tokens: Annotated[Count, EXECUTION] = Field(
        default=2048, description="Tokens, padding included, that go through a model at once."
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], EXECUTION] = Field(
        default="auto", description="Where to compute; auto takes a GPU where there is one."
    )
    threads: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="CPU threads of a process; by default all share the cores evenly."
    )
    processes: Annotated[Count, EXECUTION] = Field(
        default=1,
        description="Processes on this machine that share the items, each with a GPU of its own where there "
        "are some. Across machines: torchrun with `tsugiki evaluate`, or `tsugiki run RECIPE --only STAGE`.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        for field in ("models", "heldout", "texts", "tasks"):
            names = getattr(self, field)
            if len(set(names)) < len(names):
                message = f"{field} names something twice: {', '.join(names)}"
                raise ValueError(message)
        unknown = [name for name in self.benchmarks if not _is_benchmark(name)]
        if unknown:
            message = f'there is no task "{unknown[0]}"; ' + did_you_mean(unknown[0], _known_tasks())
            raise ValueError(message)
        if self.page_tasks and not self.heldout and not (self.texts and "bits-per-byte" in self.tasks):
            message = f"heldout: {', '.join(self.page_tasks)} are made of held-out pages; name documents"
            raise ValueError(message)
        if self.baseline is not None and self.baseline not in self.models:
            message = f'the baseline "{self.baseline}" is not one of the models: {", ".join(self.models)}'
            raise ValueError(message)
        if self.context_length and self.stride and self.stride > self.context_length:
            message = f"the stride ({self.stride}) is longer than the window ({self.context_length})"
            raise ValueError(message)
        return self

    def references(self) -> tuple[Reference, ...]:
        """The models, then the documents."""
        return (
            *(Reference("models", name, ArtifactType.MODEL) for name in self.models if not is_address(name)),
            *(Reference("heldout", name, ArtifactType.DOCUMENTS) for name in self.heldout),
            *(Reference("texts", name, ArtifactType.FILES) for name in self.texts),
            *_benchmark_files(self),
        )

    def identity_payload(self) -> dict[str, Any]:
        """The configuration, and what the benchmarks' own files say: prompts and metrics decide too."""
        payload = super().identity_payload()
        if not self.benchmarks:
            return payload
        from tsugiki.evaluation.benchmarks.asking import digest_of

        return {**payload, "benchmarks": digest_of(self.benchmarks, self.data, self.variant)}

    @property
    def page_tasks(self) -> tuple[str, ...]:
        """The tasks that are made of held-out pages."""
        return tuple(name for name in self.tasks if name in PAGE_TASKS)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The other tasks, as they are written: name, name@published or a file."""
        return tuple(name for name in self.tasks if name not in PAGE_TASKS)


def is_address(model: str) -> bool:
    """Whether a model is behind an OpenAI-style address."""
    return model.startswith(("http://", "https://"))


def _known_tasks() -> list[str]:
    from tsugiki.evaluation.benchmarks.names import task_names

    return [*PAGE_TASKS, *task_names()]


def _is_benchmark(word: str) -> bool:
    name, mark, variant = word.partition("@")
    written = name.endswith((".yaml", ".yml")) or name in _known_tasks()
    return written and name not in PAGE_TASKS and (not mark or variant in {"corrected", "published"})


def _benchmark_files(config: Config) -> tuple[Reference, ...]:
    """Nothing is imported where no benchmark is asked for."""
    if not config.benchmarks:
        return ()
    from tsugiki.evaluation.benchmarks.asking import references_of

    return tuple(references_of(config.benchmarks, config.data, config.variant))


def estimate(config: Config, inputs: Forecasts) -> Forecast:
    """Items, seconds and memory; refuses documents of which it is known that none are held out."""
    from tsugiki.evaluation.forecast import forecast

    return forecast(config, inputs)


def run(config: Config, inputs: Inputs, out: Workspace) -> Outcome:
    """Ask every model every question, write scores.parquet and comparison.json.

    Raises DataError where no page is held out, InputError for a model or language that can't be read,
    StageError where a model's answer is missing or not finite.
    """
    from tsugiki.artifacts.files import write_json
    from tsugiki.artifacts.scores import COMPARISON, SCORES, read_scores, write_scores
    from tsugiki.evaluation.comparing.comparison import Settings, compare
    from tsugiki.evaluation.engines.loading import cpu_threads
    from tsugiki.evaluation.items import dataset_names
    from tsugiki.evaluation.launching import sharing, threads_of
    from tsugiki.evaluation.models import loaders_of
    from tsugiki.evaluation.runner import answer_all, check_rows, plan_units
    from tsugiki.evaluation.sharing import lead

    names = dataset_names(config.models)
    models = tuple(names.values())
    questions = questions_of(config, inputs, out)
    units = plan_units(models, questions)
    load = loaders_of(config, inputs, names, out)
    paths = {name: [str(path) for path in inputs[name]] for name in inputs}

    def notify(done: int, total: int, unit: Unit, seconds: float | None) -> None:
        dataset = unit.items[0].dataset
        out.progress(done, total, "items", f"{unit.model}: {unit.task.name} on {dataset}")
        if seconds is not None:
            out.metrics.append(
                model=unit.model,
                task=unit.task.name,
                dataset=dataset,
                items=len(unit.items),
                seconds=round(seconds, 4),
            )

    with (
        sharing(config.processes, out.work, config.threads) as share,
        cpu_threads(threads_of(config.threads, config.processes)),
    ):
        lead(share, {"config": config.model_dump(mode="json"), "inputs": paths})
        rows = answer_all(
            units,
            load,
            out.work / "units",
            notify,
            maximum_error_share=config.maximum_error_share,
            share=share,
        )
    check_rows(rows, models, questions)
    write_scores(out.root / SCORES, rows)
    measures = {asked.task.name: asked.task.measure for asked in questions if asked.task.measure is not None}
    settings = Settings(
        models=models,
        baseline=names[config.baseline or config.models[0]],
        draws=config.bootstrap_draws,
        confidence=config.confidence,
        seed=config.seed,
        datasets=tuple(dict.fromkeys(asked.dataset for asked in questions)),
    )
    comparison = compare(read_scores(out.root), measures, settings)
    write_json(out.root / COMPARISON, comparison)
    for alarm in comparison["alarms"]:
        out.log.warning(alarm)
    counts = {"items": sum(len(asked.items) for asked in questions), "models": len(models), "rows": len(rows)}
    return Outcome(counts, _facts(comparison))


def questions_of(config: Config, inputs: Inputs, out: Workspace) -> list[Questions]:
    """The questions of all tasks on all datasets, as the configuration asks for them."""
    from tsugiki.evaluation.items import dataset_names, read_heldout
    from tsugiki.evaluation.runner import Questions

    questions = []
    for reference, dataset in dataset_names(config.heldout).items():
        pages = read_heldout(
            inputs.path(reference),
            dataset=dataset,
            maximum_documents=config.maximum_documents,
            document_bytes=config.document_bytes,
            seed=config.seed,
        )
        for task in _tasks(config, {page.language for page in pages}):
            items = tuple(task.items(pages))
            out.log.info("%s on %s: %d items from %d pages", task.name, dataset, len(items), len(pages))
            questions.append(Questions(task, dataset, items))
    return [*questions, *_text_questions(config, inputs, out), *_benchmark_questions(config, inputs, out)]


def _text_questions(config: Config, inputs: Inputs, out: Workspace) -> list[Questions]:
    """Bits per byte of text files."""
    if "bits-per-byte" not in config.tasks or not config.texts:
        return []
    from tsugiki.evaluation.items import dataset_names
    from tsugiki.evaluation.runner import Questions
    from tsugiki.evaluation.tasks.bits_per_byte import BitsPerByte
    from tsugiki.evaluation.texts import read_texts

    questions = []
    task = BitsPerByte()
    for reference, dataset in dataset_names(config.texts).items():
        pages = read_texts(
            inputs[reference],
            dataset=dataset,
            maximum_documents=config.maximum_documents,
            document_bytes=config.document_bytes,
            seed=config.seed,
        )
        out.log.info("%s on %s: %d texts", task.name, dataset, len(pages))
        questions.append(Questions(task, dataset, tuple(task.items(pages))))
    return questions


def _benchmark_questions(config: Config, inputs: Inputs, out: Workspace) -> list[Questions]:
    if not config.benchmarks:
        return []
    from tsugiki.evaluation.benchmarks.asking import ask, found_data, found_names
    from tsugiki.evaluation.runner import Questions

    asked = ask(
        found_names(config.benchmarks, inputs),
        data=found_data(config.data, inputs),
        variant=config.variant,
        maximum_items=config.maximum_items,
        accept_hashes=config.accept_hashes,
        seed=config.seed,
        log=out.log,
    )
    return [Questions(one.benchmark, one.dataset, one.items) for one in asked]


def _tasks(config: Config, languages: set[str]) -> list[PageTask]:
    """The tasks of the configuration, with the facts of the pages' languages."""
    from tsugiki.evaluation.sentences import SentenceRules
    from tsugiki.evaluation.tasks.bits_per_byte import BitsPerByte
    from tsugiki.evaluation.tasks.cloze import Cloze
    from tsugiki.evaluation.tasks.generation import Generation
    from tsugiki.languages import load_pack

    rules = {}
    # Bits per byte needs no facts of a language, so a language without a pack can be measured with it.
    if set(config.page_tasks) - {"bits-per-byte"}:
        scripts = {language: load_pack(language).script for language in sorted(languages)}
        rules = {
            language: SentenceRules(frozenset(script.sentence_terminators), script.spaceless)
            for language, script in scripts.items()
        }
    made: dict[str, PageTask] = {
        "bits-per-byte": BitsPerByte(),
        "cloze": Cloze(config.cloze_items, config.cloze_choices, config.seed, rules),
        "generation": Generation(config.generation_prompts, config.generation_bytes, config.seed, rules),
    }
    return [made[name] for name in config.page_tasks]


def _facts(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """For the manifest: every value, and the sentence on the first task's first pair of models."""
    summary = [
        {
            "task": task["task"],
            "dataset": task["dataset"],
            "metric": task["metric"],
            "values": {model: score["value"] for model, score in task["by_model"].items()},
            "sentences": [pair["sentence"] for pair in task["pairs"]],
        }
        for task in comparison["tasks"]
    ]
    sentences = [sentence for task in summary[:1] for sentence in task["sentences"][:1]]
    return {
        "comparison_summary": summary,
        "verdict": sentences[0] if sentences else "",
        "alarms": len(comparison["alarms"]),
    }
