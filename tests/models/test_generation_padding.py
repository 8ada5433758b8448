from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tsugiki.models.config import preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.generation import generate


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_padding_rows_are_never_generated_however_likely_they_are(temperature):
    decoder = Decoder(replace(preset("llama-nano"), vocabulary_size=40, tied_embeddings=False))
    initialise(decoder, 1)
    with torch.no_grad():
        # Every padding row's logit is ten times that of an old row, up or down: one of them would win.
        decoder.lm_head.weight[30:] = 10 * torch.cat(
            (decoder.lm_head.weight[:5], -decoder.lm_head.weight[:5])
        )

    def run(**options):
        generator = torch.Generator().manual_seed(0)
        return generate(decoder, [1, 2, 3], 20, temperature=temperature, generator=generator, **options)

    assert max(run()) >= 30
    assert max(run(pieces=30)) < 30
