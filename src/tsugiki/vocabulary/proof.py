"""Proof that extending a vocabulary changed nothing for text that uses no new piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from tsugiki.errors import StageError
from tsugiki.models.directory import check_parity, layers_that_fit, load_first_layers, read_config
from tsugiki.models.tokenizer import TextTokenizer

MAXIMUM_TOKENS = 64
"""Tokens of each text that the logits are compared on."""

TRANSFORMERS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class OldTextParity:
    """Logits of base and extended model on texts that use no new piece.

    max_abs_logit_difference: over the base's vocabulary, with the head's old rows; it has to be 0.0.
    whole_head: the same through the whole, larger head, where a matrix product of another shape may round in
    another order. layers: those that were in both, from the first on: all of `all_layers` unless memory was
    too small.
    """

    max_abs_logit_difference: float
    whole_head: float
    tolerance: float
    texts: int
    tokens: int
    layers: int
    all_layers: int


def prove_old_text_parity(
    base: Path, extended: Path, tokenizers: tuple[TextTokenizer, TextTokenizer], texts: Sequence[str]
) -> OldTextParity:
    """Compare base and extended model on `texts`; the two are in memory one after the other.

    Of a model that does not fit into free memory, as many layers as do are compared, and the head.
    Raises StageError where the ids or any logit over the old vocabulary differ at all, or where no text is
    given.
    """
    ids = [_short(tokenizers[0], text) for text in texts]
    if ids != [_short(tokenizers[1], text) for text in texts] or not ids:
        raise StageError(
            "the extended tokenizer gives other ids for text that uses no new piece"
            if ids
            else "no text without new pieces was found to compare the models on",
            hint="this is a fault in Tsugiki; please report it with the base model's name",
        )
    layers, rows = layers_that_fit(extended), tokenizers[0].size
    before, after = (_logits(model, layers, ids, rows) for model in (base, extended))
    difference = max(_difference(old, new) for (old, _), (new, _) in zip(before, after, strict=True))
    whole_head = max(_difference(old, new) for (_, old), (_, new) in zip(before, after, strict=True))
    if difference != 0.0:
        raise StageError(
            f"text that uses no new piece gives other logits than before: they differ by {difference:.3g}",
            hint="an old row was changed: this is a fault in Tsugiki; please report it",
        )
    tokens = sum(len(numbers) for numbers in ids)
    all_layers = read_config(extended).layers
    return OldTextParity(difference, whole_head, 0.0, len(ids), tokens, layers, all_layers)


def _short(tokenizer: TextTokenizer, text: str) -> list[int]:
    return [int(number) for number in tokenizer.encode_batch([text])[0][:MAXIMUM_TOKENS]]


@torch.inference_mode()
def _logits(
    model: Path, layers: int, texts: Sequence[Sequence[int]], rows: int
) -> list[tuple[Tensor, Tensor]]:
    """Each text's logits of the first `rows` pieces: by those rows of the head, and by the whole head."""
    decoder = load_first_layers(model, layers)
    old_rows_VD = decoder.head_weight_VD[:rows].clone()
    found = []
    for ids in texts:
        x_BTD = decoder.hidden(torch.tensor([ids]))
        found.append((F.linear(x_BTD, old_rows_VD), decoder.head(x_BTD)[..., :rows]))
    return found


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def prove_transformers_parity(
    extended: Path, tokenizer: TextTokenizer, texts: Sequence[str]
) -> dict[str, Any]:
    """Compare our logits with those of transformers on the beginnings of `texts`, joined to one sequence."""
    ids = [number for text in texts for number in _short(tokenizer, text)]
    parity = check_parity(extended, torch.tensor([ids[: 4 * MAXIMUM_TOKENS]]), TRANSFORMERS_TOLERANCE)
    return asdict(parity)
