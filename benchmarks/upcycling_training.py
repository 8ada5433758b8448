"""Training of a mixture of experts: ours against transformers' Mixtral on the same batch.

    python benchmarks/upcycling_training.py [--threads 1] [--steps 3] [--rounds 7] [--clock wall] ...

One step is forward, backward, clipping and fused AdamW in float32 on the CPU, on the same weights and tokens:

    tsugiki        our decoder and its training step: counts, entropies and both router losses included
    eager          MixtralForCausalLM with experts_implementation="eager", its own loss with the balance loss
    grouped_mm     the same with experts_implementation="grouped_mm"
    batched_mm     the same with "batched_mm" (--batched; it copies an expert for every token)

Sides take turns, so that whatever else the machine does hits all of them. Printed are medians of tokens a
second, the ratio of ours to each with the quartiles of the ratios of neighbouring turns, and the losses (the
check that all do the same work). --lopsided makes one expert take most tokens. --clock cpu counts the time
that the processor spent on this process: on a machine that others use, with one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from tsugiki.dataset.mixture import Batch
from tsugiki.models.config import DecoderConfig, MixtureOfExperts, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.names import stored_pieces
from tsugiki.training.compute import Compute
from tsugiki.training.engine import Alone
from tsugiki.training.optimizer import adamw
from tsugiki.training.routers import Balancing, routers_of

Step = Callable[[], float]
"""One training step; gives the loss."""

BALANCE = 0.02
"""Weight of the balance loss on all sides, by Hugging Face's convention (Drop-Upcycling's runs)."""


def main() -> None:
    """Print tokens a second of each side, and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3, help="steps of a turn")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--feed-forward", type=int, default=1024)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--chosen", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--lopsided", action="store_true", help="one expert gets most of the tokens")
    parser.add_argument("--batched", action="store_true", help="batched_mm too")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    sides: dict[str, Step] = {"tsugiki": our_step(options)}
    for name in ("eager", "grouped_mm", *(["batched_mm"] if options.batched else [])):
        sides[name] = their_step(options, name)
    losses = {name: step() for name, step in sides.items()}  # warms up too
    shape = shape_of(options)
    print(
        f"{shape.parameters / 1e6:.1f} M parameters ({shape.active_parameters / 1e6:.1f} M active), "
        f"{options.experts} experts of {options.feed_forward}, {options.rows} x {options.sequence} tokens a "
        f"step, {options.threads} threads, torch {torch.__version__}; {options.rounds} rounds"
    )
    print("first loss: " + ", ".join(f"{name} {loss:.5f}" for name, loss in losses.items()))
    report(options, take_turns(options, sides))


def take_turns(options: argparse.Namespace, sides: dict[str, Step]) -> dict[str, list[float]]:
    """Seconds of a step of each side, in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    for _ in range(options.rounds):
        for name, step in sides.items():
            begun = clock()
            for _ in range(options.steps):
                step()
            seconds[name].append((clock() - begun) / options.steps)
    return seconds


def report(options: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    """Print a table."""
    tokens = options.rows * options.sequence
    print("| side | tokens/s | ours / it (quartiles) |\n|---|---|---|")
    for name, found in seconds.items():
        ratios = [theirs / ours for ours, theirs in zip(seconds["tsugiki"], found, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        speed = tokens / statistics.median(found)
        print(f"| {name} | {speed:,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")


def shape_of(options: argparse.Namespace) -> DecoderConfig:
    """The model of all sides."""
    moe = MixtureOfExperts(options.experts, options.chosen, options.feed_forward, balance_coefficient=BALANCE)
    heads = options.width // 64
    return replace(
        preset("mixtral-nano"),
        vocabulary_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=options.feed_forward,
        layers=options.layers,
        heads=heads,
        kv_heads=max(1, heads // 2),
        head_dim=64,
        moe=moe,
    )


def started(options: argparse.Namespace) -> Decoder:
    """The weights that all sides start from."""
    decoder = Decoder(shape_of(options))
    initialise(decoder, 0)
    if options.lopsided:
        with torch.no_grad():
            for name, weight in decoder.named_parameters():
                if name.endswith("mlp.gate.weight"):
                    weight[0] += weight.abs().mean() * 2
    return decoder


def ids_of(options: argparse.Namespace) -> np.ndarray:
    """Tokens by Zipf's law, one more in each row than are trained on."""
    draw = np.random.default_rng(0)
    return draw.zipf(1.3, (options.rows, options.sequence + 1)).astype(np.int64) % options.vocabulary


def our_step(options: argparse.Namespace) -> Step:
    """The engine of `tsugiki train`."""
    decoder, ids = started(options), ids_of(options)
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=1e-4,
        betas=(0.9, 0.95),
        epsilon=1e-8,
        weight_decay=0.1,
        decay_embeddings=True,
    )
    routers = routers_of(decoder, Balancing(BALANCE, convention="hugging-face"))
    engine = Alone(decoder, optimizer, Compute(torch.device("cpu"), routers=routers), options.rows)
    nothing = np.zeros(ids[:, 1:].shape, np.int32)
    batch = Batch(ids[:, :-1], ids[:, 1:], nothing, np.zeros(len(ids), np.int64))

    def step() -> float:
        result = engine.train(batch, 1.0, ids[:, 1:].size)
        return result.loss + BALANCE * result.figures["balance_loss"]

    return step


def their_step(options: argparse.Namespace, implementation: str) -> Step:
    """A plain loop around MixtralForCausalLM."""
    model = their_model(options, implementation)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), fused=True)
    ids = torch.from_numpy(ids_of(options))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    def step() -> float:
        optimizer.zero_grad()
        loss = model(input_ids=inputs, labels=inputs, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return float(loss.detach())

    return step


def their_model(options: argparse.Namespace, implementation: str) -> Any:
    """The peer with our weights."""
    from transformers import MixtralConfig, MixtralForCausalLM

    decoder = started(options)
    config = MixtralConfig(**{**decoder.config.to_hf(), "output_router_logits": True, "use_cache": False})
    config._experts_implementation = implementation  # noqa: SLF001 (as from_pretrained's argument does)
    config._attn_implementation = "sdpa"  # noqa: SLF001
    model = MixtralForCausalLM(config)
    weights = decoder.state_dict()
    for name, pieces in stored_pieces(decoder.config, list(weights), fused=True).items():
        parts = [weights.pop(piece.name) for piece in pieces]
        weights[name] = torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]
    model.load_state_dict(weights)
    used = model.config._experts_implementation  # noqa: SLF001
    if used != implementation:
        raise SystemExit(f"transformers took experts_implementation {used}, not {implementation}")
    return model.train()


if __name__ == "__main__":
    main()
