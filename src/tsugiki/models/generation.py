"""Generating text from a decoder, one sequence at a time, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from tsugiki.errors import InputError
from tsugiki.models.attention import KeyValueCache
from tsugiki.models.decoder import Decoder
from tsugiki.models.sampling import draw


@torch.inference_mode()
def generate(
    decoder: Decoder,
    ids_T: Sequence[int] | Tensor,
    max_new_tokens: int,
    eos_id: int | Collection[int] | None = None,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    pieces: int | None = None,
) -> list[int]:
    """The tokens that follow `ids_T`, without it; an end token is not part of the result.

    eos_id: the token, or tokens, that end the text. temperature 0 takes the most likely token each time (the
    smallest id among equals); above 0 tokens are drawn from softmax(logits / temperature), of the `top_k`
    most likely ones if given, with `generator`: there is no hidden random state. pieces: ids that
    the tokenizer has; the rows behind them are padding and never chosen.

    Raises InputError for an empty prompt, for a prompt that fills the model's positions, and where sampling
    lacks a generator.
    """
    prompt = [int(token) for token in ids_T]
    room = decoder.config.max_positions - len(prompt)
    if not prompt or room < 1:
        raise InputError(
            f"a prompt of {len(prompt)} tokens can't be continued by a model of "
            f"{decoder.config.max_positions} positions",
            hint="give at least one token, and leave room for the answer",
        )
    if temperature > 0 and generator is None:
        raise InputError(
            "sampling needs a random generator", hint="pass generator=torch.Generator().manual_seed(0)"
        )
    ends = set() if eos_id is None else {eos_id} if isinstance(eos_id, int) else set(eos_id)
    device = decoder.head_weight_VD.device
    new_tokens = min(max_new_tokens, room)
    cache = KeyValueCache(decoder.config.layers, len(prompt) + new_tokens)
    step_BT = torch.tensor([prompt], device=device)
    generated: list[int] = []
    while len(generated) < new_tokens:
        x_BTD = decoder.hidden(step_BT, cache=cache)
        logits_V = decoder.head(x_BTD[0, -1])[:pieces].float()
        token = _choose(logits_V, temperature, top_k, generator)
        if token in ends:
            break
        generated.append(token)
        step_BT = torch.tensor([[token]], device=device)
    return generated


def _choose(
    logits_V: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> int:
    if generator is None or temperature <= 0:
        return int(logits_V.argmax())
    uniform_1 = torch.rand(1, dtype=torch.float64, generator=generator, device=generator.device)
    return int(draw(logits_V[None], uniform_1.to(logits_V.device), temperature=temperature, top_k=top_k or 0))
