"""What the model writes after a few fixed prompts, while it trains: for eyes, not for figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tsugiki.training.engine import Engine

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Prompts:
    """Texts to go on from, with at most `tokens` tokens each, the most likely one each time."""

    texts: tuple[str, ...]
    tokens: int
    tokenizer: TextTokenizer

    def samples(self, engine: Engine) -> list[dict[str, str]]:
        """Prompt and text of each; every process of a run calls it at the same step, with the same result."""
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        ids = [[*start, *found] for found in self.tokenizer.encode_within(list(self.texts))]
        written = engine.continuations(ids, self.tokens, self.tokenizer.eos_id, self.tokenizer.size)
        return [
            {"prompt": text, "text": self.tokenizer.decode(after)}
            for text, after in zip(self.texts, written, strict=True)
        ]
