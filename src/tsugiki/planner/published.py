"""The estimate of "4D parallelism memory estimator" (arXiv 2411.06465), as its authors compute it.

After okoge-kaz/Megatron-LM, megatron/training/theoretical_memory_usage.py (55d369bf), which the paper's 80 %
rule was measured with. It differs from `memory.py` in three ways: token ids of the first stage are counted as
8 bytes times h (a slip that leaves 0.25 GiB of slack), the last stage of a pipeline has no logits, and a
logit has 4 bytes.
"""

from __future__ import annotations

from tsugiki.planner.layout import Layout, Workload


def published_estimate(workload: Workload, layout: Layout) -> tuple[float, float]:
    """Bytes of states and of activations of the most loaded process: dense models, distributed optimizer.

    N = 2 L h² ((1 + k/a) a H / h + 1.5 f/h + 1/h) + h; the first stage holds ((N - h)/p + h v)/t and, with
    p = 1 and an untied head, h v/t + h more; 6 + 12/D bytes each, D = d c. Activations: s b h (12 + 4 k/a +
    8 f/h)/(c t) of L layers, times min(1, m/p), times 1 + (p - 1)/(p V) if interleaved.
    """
    model, tensor, stages = workload.model, layout.tensor, layout.pipeline
    width, share = model.hidden_size, model.kv_heads / model.heads
    projection = model.heads * model.head_dim / width
    per_layer = (1 + share) * projection + 1.5 * model.intermediate_size / width + 1 / width
    layers = 2 * model.layers * width**2 * per_layer
    embedding = width * model.vocabulary_size
    parameters = (layers / stages + embedding) / tensor
    if stages == 1 and not model.tied_embeddings:
        parameters += embedding / tensor + width
    states = parameters * (2 + workload.gradient_bytes + 12 / layout.sharing)
    stream = layout.tokens(workload) * width
    layer = stream * (12 + 4 * share + 8 * model.intermediate_size / width) / tensor
    activations = layer * model.layers * min(1.0, layout.micro_batches(workload) / stages)
    if layout.chunks > 1:
        activations *= 1 + (stages - 1) / (stages * layout.chunks)
    activations += 8 * stream * stages / tensor
    if stages == 1:
        activations += 4 * stream * (1 + model.vocabulary_size / width) / tensor
    return states, activations
