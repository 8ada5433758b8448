"""What the models write after the beginning of a page: shown side by side, not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tsugiki.errors import DataError
from tsugiki.evaluation.backend import Backend, Prompt, Sampling
from tsugiki.evaluation.items import Item, Page, byte_length, cut_bytes, stable_hash, stable_integer
from tsugiki.evaluation.sentences import SentenceRules
from tsugiki.evaluation.tasks.base import Measure, Row, base_row

NAME = "generation"
PROMPT_BYTES = 120
"""About 120 English or 40 Japanese characters: equal in bytes, so it fits every model's window alike."""
SAMPLING = Sampling(temperature=0.8, top_k=40)
"""Greedy decoding of small models falls into loops (Holtzman et al. 2020, arXiv 1904.09751). k = 40 is that
of GPT-2's released samples (openai/gpt-2); 0.8 keeps a sample of a small model readable."""


@dataclass(frozen=True)
class Generation:
    """The first `prompts` pages that are long enough; at most `maximum_bytes` written for each."""

    prompts: int
    maximum_bytes: int
    seed: int
    rules: Mapping[str, SentenceRules] = field(default_factory=dict)
    name: str = NAME
    measure: Measure | None = None

    @property
    def written_bytes(self) -> int:
        """See `Task`."""
        return self.maximum_bytes

    def items(self, pages: Sequence[Page]) -> list[Item]:
        """The page's beginning as prompt and its true continuation as the one choice (for the eye only).

        Raises DataError where no page is long enough.
        """
        items: list[Item] = []
        for page in pages:
            text = page.text.strip()
            prompt = self._prompt(text, page.language)
            rest = cut_bytes(text[len(prompt) :], self.maximum_bytes)
            if (
                len(items) < self.prompts
                and prompt
                and byte_length(rest) >= min(PROMPT_BYTES, self.maximum_bytes) - 3
            ):
                key = stable_hash(page.id, prompt)
                continuation = cut_bytes(rest, self.maximum_bytes)
                origin = (page.dataset, page.language, page.domain, page.cluster)
                items.append(Item(NAME, *origin, key, prompt, (continuation,), answer=0))
        if not items:
            raise DataError(
                f"none of {len(pages)} held-out pages is long enough for a prompt of {PROMPT_BYTES} bytes "
                "and a continuation",
                hint="hold out more pages, or leave the generation task out",
            )
        return items

    def _prompt(self, text: str, language: str) -> str:
        """The first PROMPT_BYTES, cut between words in languages that have spaces between them."""
        prompt = cut_bytes(text, PROMPT_BYTES)
        whole_words = prompt.rsplit(maxsplit=1)
        spaceless = language in self.rules and self.rules[language].spaceless
        if spaceless or len(whole_words) == 1 or text[len(prompt) : len(prompt) + 1].isspace():
            return prompt.rstrip()
        return whole_words[0]

    def rows(self, backend: Backend, items: Sequence[Item]) -> list[Row]:
        """output: what the model wrote; gold: what the page goes on with; no score."""
        prompts = [
            Prompt(item.prompt, self.maximum_bytes, stable_integer(self.seed, item.id), SAMPLING)
            for item in items
        ]
        rows = []
        for item, answer in zip(items, backend.continuations(prompts), strict=True):
            rows.append(
                base_row(item)
                | {
                    "output": answer.text,
                    "gold": item.choices[0],
                    "tokens": answer.tokens,
                    "bytes": byte_length(answer.text),
                    "characters": len(answer.text),
                    "truncated": answer.truncated,
                    "cut_context": answer.cut_context,
                    "empty": not answer.text.strip(),
                }
            )
        return rows
