"""What the model writes after a few fixed prompts, while it trains: for eyes, not for figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tsugiki.models.generation import generate
from tsugiki.training.engine import Alone, Engine

if TYPE_CHECKING:
    from tsugiki.models.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Prompts:
    """Texts to go on from, with at most `tokens` tokens each, the most likely one each time."""

    texts: tuple[str, ...]
    tokens: int
    tokenizer: TextTokenizer

    @torch.no_grad()
    def samples(self, engine: Engine) -> list[dict[str, str]]:
        """Prompt and text of each; none where the model lies in several processes."""
        if not isinstance(engine, Alone):
            return []
        decoder = engine.decoder
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        found = []
        for text in self.texts:
            ids = [*start, *self.tokenizer.encode_within([text])[0]]
            with engine.compute.autocast():  # the precision in force
                written = generate(
                    *(decoder, ids, min(self.tokens, decoder.config.max_positions - len(ids))),
                    eos_id=self.tokenizer.eos_id,
                    pieces=self.tokenizer.size,
                )
            found.append({"prompt": text, "text": self.tokenizer.decode(written)})
        return found
