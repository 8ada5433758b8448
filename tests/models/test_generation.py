from __future__ import annotations

import pytest
import torch

from tsugiki.errors import InputError
from tsugiki.models.attention import KeyValueCache
from tsugiki.models.generation import generate


def without_cache(decoder, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_generate_greedy_equals_recomputing_every_step_and_transformers(nano, model_directory):
    from transformers import AutoModelForCausalLM

    prompt = [5, 80, 21, 9]
    ours = generate(nano, prompt, 20)
    assert ours == without_cache(nano, prompt, 20)
    peer = AutoModelForCausalLM.from_pretrained(model_directory).eval()
    ids = torch.tensor([prompt])
    theirs = peer.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=20,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert ours == theirs[0, len(prompt) :].tolist()


def test_generate_prompt_as_tensor_and_as_list_are_the_same(nano):
    assert generate(nano, torch.tensor([7, 8, 9]), 5) == generate(nano, [7, 8, 9], 5)


def test_generate_stops_at_the_end_token_and_leaves_it_out(nano):
    free = generate(nano, [3, 4], 12)
    end = free[5]
    assert generate(nano, [3, 4], 12, end) == free[: free.index(end)]
    assert generate(nano, [3, 4], 12, {end, free[2]}) == free[: min(free.index(end), free.index(free[2]))]


def test_generate_sampling_is_decided_by_its_generator(nano):
    def draw(seed):
        return generate(nano, [3], 16, temperature=1.0, generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(1)
    one = draw(5)
    torch.manual_seed(2)
    assert draw(5) == one
    assert draw(6) != one


def test_generate_top_1_sampling_is_greedy(nano):
    sampled = generate(nano, [3], 8, temperature=2.0, top_k=1, generator=torch.Generator().manual_seed(0))
    assert sampled == generate(nano, [3], 8)


def test_generate_never_outgrows_the_models_positions(nano):
    prompt = [1] * (nano.config.max_positions - 3)
    assert len(generate(nano, prompt, 10)) == 3


@pytest.mark.parametrize("length", [0, 512])
def test_generate_prompt_that_leaves_no_room_is_refused(nano, length):
    with pytest.raises(InputError, match=f"a prompt of {length} tokens"):
        generate(nano, [1] * length, 4)


def test_generate_sampling_without_generator_is_refused(nano):
    with pytest.raises(InputError, match="random generator"):
        generate(nano, [1], 4, temperature=1.0)


def test_cache_filled_in_chunks_gives_the_logits_of_one_pass(nano):
    ids = torch.randint(0, 320, (2, 30), generator=torch.Generator().manual_seed(0))
    cache = KeyValueCache(nano.config.layers, 30)
    with torch.no_grad():
        parts = [nano.hidden(part, cache=cache) for part in ids.split([7, 1, 12, 10], dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), nano.hidden(ids), atol=1e-5, rtol=0)
    assert cache.length == 30
