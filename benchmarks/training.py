"""Our training step against transformers' Llama: the same shape, batch, optimizer and precision.

    python benchmarks/training.py [--threads 1] [--steps 12] [--precisions float32 bfloat16]

Peers: a bare loop over `LlamaForCausalLM` (forward with labels, backward, clip, fused AdamW), and the Hugging
Face Trainer where accelerate is installed (`pip install accelerate`). Our step does what a run does: it takes
packed windows from token units, masks documents, measures bits per byte, and clips. Loops take turns step
by step, so that whatever else the machine does hits all of them; medians are compared.

    fixed blocks    every row is one long document: both sides compute the same thing
    documents       packed documents of varying length, with masks for us. The peer sees the same packed rows
                    without masks, as users of fixed blocks have it: it computes more attention, and attends
                    across documents
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import TokenSource, open_tokens
from tsugiki.models.config import DecoderConfig, preset
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.tokenizer import TextTokenizer, train_byte_level_bpe
from tsugiki.training.compute import Compute, deterministic
from tsugiki.training.engine import optimizer_step
from tsugiki.training.optimizer import adamw
from tsugiki.training.validation import bits_per_byte, target_bytes

LONG_DOCUMENT_WORDS = 10_000
ADAMW = {"learning_rate": 3e-4, "betas": (0.9, 0.95), "epsilon": 1e-8, "weight_decay": 0.1}


def main() -> None:
    """Print one row of tokens per second and ratios for each precision and kind of data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, default=12, help="measured steps of each loop, after two to warm up"
    )
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    shape = replace(
        preset("llama-nano"),
        vocabulary_size=options.vocabulary,
        hidden_size=256,
        intermediate_size=688,
        layers=6,
        heads=8,
        kv_heads=8,
        head_dim=32,
        tied_embeddings=True,
        max_positions=options.sequence,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokens = f"{options.rows} x {options.sequence} tokens a step"
    print(f"{shape.parameters / 1e6:.2f} M parameters, {tokens}, {device}")
    with tempfile.TemporaryDirectory() as folder, deterministic(options.threads, device) as threads:
        torch.use_deterministic_algorithms(mode=False)  # the peers do without
        print(f"{threads} threads, torch {torch.__version__}; tokens/s are medians of {options.steps} steps")
        for kind, words in (("fixed blocks", 60_000), ("documents", 120)):
            source, tokenizer = make_source(Path(folder) / kind, words)
            for precision in options.precisions:
                compare(
                    kind,
                    precision,
                    shape,
                    source=source,
                    tokenizer=tokenizer,
                    device=device,
                    options=options,
                )


def make_source(directory: Path, longest_words: int) -> tuple[TokenSource, TextTokenizer]:
    """Token units of random documents, up to `longest_words` words each."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(2000)]
    is_long = longest_words >= LONG_DOCUMENT_WORDS
    lengths = [longest_words] * 4 if is_long else [draw.randint(10, longest_words) for _ in range(3000)]
    schema = documents_schema({})
    rows = [
        dict.fromkeys(schema.names)
        | {"id": str(number), "text": " ".join(draw.choices(words, k=length)), "split": "train"}
        for number, length in enumerate(lengths)
    ]
    write_documents(directory / "documents" / "part-00000.parquet", pa.Table.from_pylist(rows, schema=schema))
    tokenizer = train_byte_level_bpe((row["text"] for row in rows[:200]), 1000)
    return open_tokens("benchmark", tokenise(directory, tokenizer, directory / "units"), tokenizer), tokenizer


def compare(
    kind: str,
    precision: str,
    shape: DecoderConfig,
    *,
    source: TokenSource,
    tokenizer: TextTokenizer,
    device: torch.device,
    options: argparse.Namespace,
) -> None:
    """Time the loops in turns on the same batches."""
    mixture = Mixture(
        [source],
        {source.name: 1.0},
        steps=options.steps + 2,
        sequences_per_step=options.rows,
        sequence_length=options.sequence,
        seed=0,
        max_epochs=1000,
    )
    bfloat16 = precision == "bfloat16"
    loops = {
        "tsugiki": our_loop(shape, mixture, tokenizer, device, bfloat16=bfloat16),
        "bare transformers": bare_loop(shape, mixture, device, bfloat16=bfloat16),
    }
    seconds = {name: [next(loop) for _ in range(1)] for name, loop in loops.items()}
    for _ in range(options.steps + 1):
        for name, loop in loops.items():
            seconds[name].append(next(loop))
    tokens = options.rows * options.sequence
    speeds = {name: tokens / statistics.median(times[2:]) for name, times in seconds.items()}
    if importlib.util.find_spec("accelerate") is not None:
        speeds["HF Trainer"] = tokens / trainer_seconds(shape, mixture, bfloat16=bfloat16)
    ours = speeds["tsugiki"]
    figures = ", ".join(f"{name} {speed:,.0f} ({ours / speed:.2f} x)" for name, speed in speeds.items())
    print(f"{kind:13} {precision:9} {figures}")


def our_loop(
    shape: DecoderConfig, mixture: Mixture, tokenizer: TextTokenizer, device: torch.device, *, bfloat16: bool
) -> Iterator[float]:
    """Seconds of each of our steps, feeding and measuring included."""
    decoder = Decoder(shape)
    initialise(decoder, 0)
    decoder.to(device).train()
    optimizer = adamw(decoder.named_parameters(), **ADAMW, decay_embeddings=False)
    compute = Compute(device, bfloat16=bfloat16)
    for step in range(mixture.steps):
        begun = time.perf_counter()
        batch = mixture.batch(step)
        result = optimizer_step(decoder, optimizer, batch, compute=compute, rows_at_once=len(batch), clip=1.0)
        bits_per_byte(result.nats, target_bytes(batch.targets_BT, tokenizer.piece_bytes))
        yield time.perf_counter() - begun


def bare_loop(
    shape: DecoderConfig, mixture: Mixture, device: torch.device, *, bfloat16: bool
) -> Iterator[float]:
    """Seconds of each step of a plain loop over LlamaForCausalLM; batches are ready beforehand."""
    model = hf_model(shape).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    for step in range(mixture.steps):
        ids_BT = torch.from_numpy(mixture.batch(step).ids_BT).to(device)
        begun = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        yield time.perf_counter() - begun


def hf_model(shape: DecoderConfig) -> torch.nn.Module:
    """The peer's model of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**shape.to_hf()))


def trainer_seconds(shape: DecoderConfig, mixture: Mixture, *, bfloat16: bool) -> float:
    """Median seconds of the Trainer's steps on the same rows."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    rows = [
        {"input_ids": row, "labels": row}
        for step in range(mixture.steps)
        for row in mixture.batch(step).ids_BT
    ]
    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_arguments: object, **_keywords: object) -> None:
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=mixture.sequences_per_step,
            max_steps=mixture.steps,
            use_cpu=not torch.cuda.is_available(),
            bf16=bfloat16,
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        make: Callable[..., Trainer] = Trainer
        make(model=hf_model(shape), args=arguments, train_dataset=rows, callbacks=[Clock()]).train()
    return float(np.median(np.diff(moments)[2:]))


if __name__ == "__main__":
    main()
