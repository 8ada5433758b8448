"""A benchmark as the runner asks it: items in, rows out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp
from typing import Any, cast

from tsugiki.artifacts.processes import usable_cores
from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.backend import Backend, Choices, Continuation, Likelihood, Prompt, Sampling
from tsugiki.evaluation.benchmarks.fitting import fitted
from tsugiki.evaluation.benchmarks.questions import Question
from tsugiki.evaluation.benchmarks.schema import CORRECTED_SCORE, PUBLISHED_SCORE, Settings, TaskSpec, Variant
from tsugiki.evaluation.benchmarks.scoring import PIECES, SEPARATOR, item_scores, metric_of
from tsugiki.evaluation.items import Item, byte_length, stable_integer
from tsugiki.evaluation.tasks.base import Measure, Row, base_row

TOKEN_BYTES = 32
"""Bytes that a token may take: where a cap in tokens counts, the one in bytes must not end a text before."""


@dataclass(frozen=True)
class Benchmark:
    """One variant of a task. seed: of sampled answers only."""

    task: TaskSpec
    variant: Variant
    settings: Settings
    seed: int = 0

    @property
    def name(self) -> str:
        """The task's name; the published variant says so."""
        return self.task.name if self.variant == "corrected" else f"{self.task.name}@{self.variant}"

    @property
    def measure(self) -> Measure | None:
        """How the column `score` is read."""
        return Measure(
            self.task.metric,
            lower_is_better=False,
            chance=self.task.chance,
            corpus=self.settings.corpus,
            cluster=self.task.cluster.name if self.task.cluster else "question",
        )

    @property
    def written_bytes(self) -> int:
        """See `Task`: of all samples together."""
        how = self.settings.generation
        return 0 if how is None else how.samples * how.maximum_bytes

    def rows(self, backend: Backend, items: Sequence[Item]) -> list[Row]:
        """One row an item, or one a sample; see the module of each way to answer below."""
        questions = [item for item in items if isinstance(item, Question)]
        if self.settings.answer in {"choose", "contexts"}:
            return self._chosen(backend, questions)
        return self._written(backend, questions)

    def _chosen(self, backend: Backend, questions: Sequence[Question]) -> list[Row]:
        """score: 1 where the right option has the largest ln p in sum; other_scores by_byte: per byte."""
        likelihoods = self._likelihoods(backend, questions)
        rows = []
        for question, options in zip(questions, likelihoods, strict=True):
            texts = question.choices * len(options) if question.contexts else question.choices
            right = cast("int", question.answer)
            scores, best = _choices(options, texts, right)
            shown = question.contexts or question.choices
            sizes = byte_length(texts[right]), len(texts[right])
            rows.append(
                base_row(question)
                | {
                    "output": shown[best].strip() if not question.contexts else shown[best][-80:],
                    "gold": shown[right].strip() if not question.contexts else shown[right][-80:],
                    "score": scores["sum"],
                    "nll_nats": options[right].nll_nats,
                    "tokens": options[right].tokens,
                    "bytes": sizes[0],
                    "characters": sizes[1],
                    "cut_context": any(option.cut_context for option in options),
                    "empty": any(option.tokens == 0 for option in options),
                    "other_scores": {PUBLISHED_SCORE: scores["sum"], "by_byte": scores["by_byte"]},
                }
            )
        return rows

    def _likelihoods(self, backend: Backend, questions: Sequence[Question]) -> list[tuple[Likelihood, ...]]:
        if self.settings.answer != "contexts":
            return backend.choice_likelihoods([Choices(one.prompt, one.choices) for one in questions])
        asked = [Choices(context, one.choices) for one in questions for context in one.contexts]
        answers = iter(backend.choice_likelihoods(asked))
        return [tuple(next(answers)[0] for _ in one.contexts) for one in questions]

    def _written(self, backend: Backend, questions: Sequence[Question]) -> list[Row]:
        """score: of the generated text, by the task's metric; the published one beside it."""
        samples = self.settings.generation.samples if self.settings.generation else 1
        asked = [(question, sample) for question in questions for sample in range(samples)]
        prompts = self._prompts(backend, asked)
        answers = backend.continuations(prompts)
        beside = self._beside(backend, questions)
        scored = self._scored(backend, asked, answers)
        rows = []
        for (question, sample), prompt, answer, scores in zip(asked, prompts, answers, scored, strict=True):
            others = {**scores, **beside.get(question.id, {})}
            row = base_row(question) | {
                "output": answer.text,
                "gold": question.references[0] if question.references else "",
                "score": others.pop(CORRECTED_SCORE),
                "tokens": answer.tokens,
                "bytes": byte_length(answer.text),
                "characters": len(answer.text),
                "truncated": answer.truncated,
                "cut_context": answer.cut_context or prompt.text != question.prompt,
                "empty": not answer.text.strip(),
                "other_scores": others or None,
                "sample": sample if samples > 1 else None,
            }
            if self.settings.corpus is not None:
                row |= self._corpus_columns(question, answer)
            rows.append(row)
        return rows

    def _prompts(self, backend: Backend, asked: Sequence[tuple[Question, int]]) -> list[Prompt]:
        how = self.settings.generation
        if how is None:  # the schema does not let this happen
            raise InputError(f"{self.name} has no `generation`", hint="write how the text is generated")
        sampling = None if how.temperature is None else Sampling(how.temperature, how.top_k, how.top_p)
        caps: list[int | None] = [None] * len(asked)
        if how.maximum_tokens == "gold + 10":
            golds = _pieces(backend, [question.references[0] for question, _ in asked], self.name)
            caps = [len(gold) + 10 for gold in golds]
        elif how.maximum_tokens == "1024 - prompt":
            prompts = _pieces(backend, [question.prompt for question, _ in asked], self.name)
            caps = [max(1, 1024 - 1 - len(prompt)) for prompt in prompts]
        elif how.maximum_tokens is not None:
            caps = [how.maximum_tokens] * len(asked)
        return [
            Prompt(
                self._fitted(backend, question, cap),
                how.maximum_bytes if cap is None else max(how.maximum_bytes, TOKEN_BYTES * cap),
                stable_integer(self.seed, question.id, sample),
                sampling,
                how.stops,
                cap,
            )
            for (question, sample), cap in zip(asked, caps, strict=True)
        ]

    def _fitted(self, backend: Backend, question: Question, cap: int | None) -> str:
        """The prompt, shortened for the model where the published run did so and the backend can tell."""
        measuring = getattr(backend, "measuring", None)
        if self.settings.fit is None or measuring is None:
            return question.prompt
        return fitted(self.settings.fit, question, cap or 0, measuring)

    def _scored(
        self, backend: Backend, asked: Sequence[tuple[Question, int]], answers: Sequence[Continuation]
    ) -> list[dict[str, float]]:
        """The numbers of every answer. A published score of another prompt than the published is not one."""
        if self.settings.answer == "code":
            scored = _run_programs(self.settings, asked, answers)
        else:
            scored = [
                item_scores(self.settings, answer.text, question.references)
                for (question, _), answer in zip(asked, answers, strict=True)
            ]
        for name, score in self.settings.scores.items():
            if score.metric == PIECES and getattr(backend, "pieces", None) is not None:
                self._score_pieces(backend, name, asked, answers, scored)
        if self.task.differs and self.variant == "corrected":
            for scores in scored:
                if PUBLISHED_SCORE in scores:
                    scores["published_metric"] = scores.pop(PUBLISHED_SCORE)
        return scored

    def _score_pieces(
        self,
        backend: Backend,
        name: str,
        asked: Sequence[tuple[Question, int]],
        answers: Sequence[Continuation],
        scored: Sequence[dict[str, float]],
    ) -> None:
        """Add the number that is computed over the model's own tokens."""
        metric = metric_of(PIECES)
        outputs = _pieces(backend, [answer.text for answer in answers], self.name)
        golds = _pieces(backend, [question.references[0] for question, _ in asked], self.name)
        for scores, output, gold in zip(scored, outputs, golds, strict=True):
            scores[name] = metric(SEPARATOR.join(output), [SEPARATOR.join(gold)])

    def _beside(self, backend: Backend, questions: Sequence[Question]) -> dict[str, dict[str, float]]:
        """What likelihoods say beside the generated text: the options', or that of one text."""
        if self.settings.likelihood is not None:
            text = self.settings.delimiter + self.settings.likelihood
            found = backend.choice_likelihoods([Choices(one.prompt, (text,)) for one in questions])
            return {
                question.id: {"no_answer_probability": exp(-likelihood[0].nll_nats)}
                for question, likelihood in zip(questions, found, strict=True)
            }
        if self.settings.options is None or self.settings.label is None:
            return {}
        answers = backend.choice_likelihoods([Choices(one.prompt, one.choices) for one in questions])
        return {
            question.id: _choices(options, question.choices, cast("int", question.answer))[0]
            for question, options in zip(questions, answers, strict=True)
        }

    def _corpus_columns(self, question: Question, answer: Continuation) -> dict[str, Any]:
        from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

        metric = CORPUS_METRICS[cast("str", self.settings.corpus)]
        sums = metric.sums(answer.text.strip(), question.references)
        return {"sums": list(sums), "score": metric.item_value(sums)}


def _choices(options: Sequence[Likelihood], texts: Sequence[str], right: int) -> tuple[dict[str, float], int]:
    """Whether the right option wins in sum and per byte, and which one wins in sum (the first of equals)."""
    from tsugiki.evaluation.metrics.likelihood import choice_scores

    found = choice_scores(options, texts, right)
    return {name: found.scores[name] for name in ("sum", "by_byte")}, found.picked["sum"]


def _pieces(backend: Backend, texts: Sequence[str], name: str) -> list[list[str]]:
    """The texts as the model's own tokens; raises DependencyError where the backend does not tell them."""
    tell = getattr(backend, "pieces", None)
    if tell is None:
        raise DependencyError(
            f"{name} was published with lengths in the model's own tokens, which this backend does not tell",
            hint="run the corrected variant, or use a model directory as backend",
        )
    return cast("list[list[str]]", tell(texts))


def _run_programs(
    settings: Settings, asked: Sequence[tuple[Question, int]], answers: Sequence[Continuation]
) -> list[dict[str, float]]:
    """1.0 for each program whose tests pass in the sandbox; `answered`: it is not blank (answer@k).

    Raises DependencyError where this machine can't isolate programs: they are never run otherwise.
    """
    from tsugiki.evaluation.sandbox.checks import human_eval_program, run_checks
    from tsugiki.evaluation.sandbox.inside import Limits

    programs = [
        human_eval_program(question.prompt, answer.text, *question.program)
        for (question, _), answer in zip(asked, answers, strict=True)
    ]
    limits = Limits(wall_seconds=settings.seconds, cpu_seconds=ceil(settings.seconds) + 1)
    verdicts = run_checks(programs, workers=usable_cores(), limits=limits)
    return [
        {
            CORRECTED_SCORE: float(verdict.passed),
            PUBLISHED_SCORE: float(verdict.passed),
            "answered": float(bool(answer.text.strip())),
        }
        for verdict, answer in zip(verdicts, answers, strict=True)
    ]
