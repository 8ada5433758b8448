"""Load balancing of a mixture of experts: the conventions of its loss, and balancing without a loss.

With E experts of which each token goes through K, L sparse layers, and over some n tokens of a layer
    f_e = tokens that chose expert e / n           (the f of all experts add up to K)
    P_e = mean probability that the router gave e  (they add up to 1)
    one = E · sum over experts of f_e · P_e        (Switch Transformer, arXiv 2101.03961, equations 4 to 6)
`one` is K where the load is even, and E where all tokens choose the same expert with all probability. What is
called "the load-balancing loss" differs in which tokens n counts, in whether layers are looked at one by one,
and in what the whole is divided by:

    name              tokens          layers             even   collapsed   whose
    sequence          a sequence      mean over layers   K      E           ours; the default
    layer             a micro-batch   mean over layers   K      E           Drop-Upcycling's analysis
    hugging-face      a micro-batch   thrown together    K      E           transformers; Drop-Upcycling
    megatron          a micro-batch   sum over layers    1 a layer   E/K    Megatron-Core's aux_loss
    megatron-sequence a sequence      sum over layers    1 a layer   E/K    its seq_aux_loss; DeepSeek-V3
    megatron-global   the batch       sum over layers    1 a layer   E/K    its global_aux_loss; 2501.11873

"A sequence" depends on nothing but the data, so every layout trains on the same loss. "A micro-batch" is what
goes through one process (or several that share sequences) at once: the loss changes with micro_batch_tokens.
"The batch" counts f over all data-parallel processes and over the micro-batches of the step so far (so does
Megatron): it is the whole batch's where a step is one micro-batch. Thrown together, imbalances of different
layers cancel out (transformers issues 28255 and 31464); a pipeline stage would not know of the other stages'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tsugiki.errors import InputError, did_you_mean

ConventionName = Literal[
    "sequence", "layer", "hugging-face", "megatron", "megatron-sequence", "megatron-global"
]


@dataclass(frozen=True)
class Convention:
    """What a load-balancing loss is taken over; see the module.

    scope: which tokens f counts. together: all layers' tokens are thrown together. summed: divided by K and
    added up over layers, as Megatron does; otherwise the mean over layers.
    """

    scope: Literal["sequence", "micro-batch", "batch"]
    together: bool = False
    summed: bool = False

    def even(self, experts_per_token: int, layers: int) -> float:
        """The loss where every expert of every layer has the same load."""
        return float(layers) if self.summed else float(experts_per_token)

    def collapsed(self, experts: int, experts_per_token: int, layers: int) -> float:
        """The loss where in every layer all tokens choose the same expert, which has all probability."""
        return layers * experts / experts_per_token if self.summed else float(experts)


CONVENTIONS: Mapping[ConventionName, Convention] = {
    "sequence": Convention("sequence"),
    "layer": Convention("micro-batch"),
    "hugging-face": Convention("micro-batch", together=True),
    "megatron": Convention("micro-batch", summed=True),
    "megatron-sequence": Convention("sequence", summed=True),
    "megatron-global": Convention("batch", summed=True),
}


def convention_of(name: str) -> Convention:
    """A convention by its name. Raises InputError for a name that is not known."""
    found = {str(key): value for key, value in CONVENTIONS.items()}.get(name)
    if found is None:
        known = get_args(ConventionName)
        raise InputError(
            f'there is no convention "{name}" of a load-balancing loss; known: {", ".join(known)}',
            hint=did_you_mean(name, known),
        )
    return found


def convert_coefficient(
    coefficient: float, given: str, wanted: str, *, experts_per_token: int, layers: int
) -> float:
    """The coefficient in convention `wanted` whose loss pushes as hard as `coefficient` in `given`.

    The gradients are equal where all layers are loaded alike: Megatron's loss is L / K times the mean over
    layers, so alpha of Hugging Face is alpha · K / L there (0.02 with K = 2 and L = 24: 1.67e-3). Scopes
    don't change the scale. layers: sparse ones. Raises InputError for a name that is not known, or a K or L
    below 1.
    """
    if experts_per_token < 1 or layers < 1:
        raise InputError(
            f"{experts_per_token} experts a token in {layers} sparse layers: both have to be 1 or more",
            hint="take them from the model's config.json",
        )
    ratio = layers / experts_per_token
    mean = coefficient * (ratio if convention_of(given).summed else 1.0)
    return mean / (ratio if convention_of(wanted).summed else 1.0)
