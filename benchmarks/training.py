"""A whole training run of ours against transformers: same model, rows, optimizer, precision, threads.

    python benchmarks/training.py [--threads 1] [--steps 10] [--rounds 5] [--precisions float32 bfloat16]
    python benchmarks/training.py --model llm-jp-3-1.8b --sequence 4096 --precisions bfloat16   # on a GPU

The text is the Japanese part of the sample crawl, through our corpus stage. Ours is the real loop of
`tsugiki train` with everything on: packed windows from token units, document masking, z-loss, spike detector,
per-layer norms, bytes counted, a metrics row a step. The peers:

    bare loop       LlamaForCausalLM, labels in, backward, clip, fused AdamW; batches are ready beforehand
    HF Trainer      the same with its data loader and logging (needs accelerate: `pip install accelerate`)

    fixed blocks    every row is one block of text without masks on all sides: the same computation
    documents       ours: packed documents with masks. The Trainer as its users run it, on the same text:
                    `grouped`, joined into blocks without masks (tokens attend across documents), or `padded`,
                    one document a row, cut at a sequence's length, filled up to the longest of a batch

Sides take turns, round by round, so that whatever else the machine does hits all of them. A step's time is
that from its start to the start of the next; figures are medians over all rounds. Tokens are useful ones:
padding counts for nobody.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import multiprocessing
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.artifacts.documents import TRAIN, iterate_documents
from tsugiki.corpus import stage as corpus_stage
from tsugiki.dataset.mixture import Batch
from tsugiki.dataset.tokens import TokenSource
from tsugiki.models.decoder import Decoder, initialise
from tsugiki.models.tokenizer import TextTokenizer, train_byte_level_bpe
from tsugiki.training.compute import Compute, deterministic
from tsugiki.training.engine import Alone, StepResult
from tsugiki.training.loop import Run, run_steps
from tsugiki.training.meter import meter_of
from tsugiki.training.optimizer import adamw
from tsugiki.training.packed_attention import attention_of
from tsugiki.training.preparation import Plan, new_shape, plan_of, token_sources
from tsugiki.training.stage import Config

WARM_UP_STEPS = 2
CORPUS = "japanese"


@dataclass(frozen=True)
class Bench:
    """What all sides share."""

    options: argparse.Namespace
    tokenizer: TextTokenizer
    corpus: Path
    sources: dict[str, TokenSource]
    device: torch.device
    folder: Path

    @property
    def steps(self) -> int:
        """Steps of one turn, those to warm up included."""
        return int(self.options.steps) + WARM_UP_STEPS

    def config(self, precision: str, *, masking: bool) -> Config:
        """Our train stage's configuration."""
        options = self.options
        shape = {"preset": options.model} if options.model else SHAPE
        return Config.model_validate(
            {
                "model": {**shape, "max_positions": options.sequence},
                "tokenizer": {"train": CORPUS, "size": options.vocabulary},
                "data": {CORPUS: 1.0},
                "tokens": self.steps * options.rows * options.sequence,
                "batch_tokens": options.rows * options.sequence,
                "sequence_length": options.sequence,
                "micro_batch_tokens": options.rows * options.sequence,
                "precision": precision,
                "document_masking": masking,
                "learning_rate": 3e-4,
                "z_loss": 1e-4,
                "max_epochs": 1000,
            }
        )

    def plan(self, precision: str, *, masking: bool) -> Plan:
        """The data of every step."""
        config = self.config(precision, masking=masking)
        shape = new_shape(config.model, self.tokenizer)  # type: ignore[arg-type]  # a preset
        return plan_of(config, Inputs({}), self.tokenizer, shape, self.sources, work=self.folder)


SHAPE = {
    "preset": "llama-nano",
    "hidden_size": 256,
    "intermediate_size": 688,
    "layers": 6,
    "heads": 8,
    "kv_heads": 8,
    "head_dim": 32,
    "tied_embeddings": True,
}

Turn = Callable[[], tuple[list[float], float]]
"""Seconds of each measured step, and useful tokens of a step."""


def main() -> None:
    """Print a row of useful tokens a second and ratios for each precision and kind of data."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, default=10, help="measured steps of a turn, after two to warm up"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--sequence", type=int, default=512)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument(
        "--model",
        help="a preset of the Llama family, for a GPU: llm-jp-3-1.8b (default: 6.8 M parameters at V = 8192)",
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--kinds", nargs="+", default=["fixed blocks", "documents"])
    options = parser.parse_args()
    set_up(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        bench = prepare(options, Path(name), device)
        shape = new_shape(bench.config("float32", masking=True).model, bench.tokenizer)  # type: ignore[arg-type]
        print(
            f"{shape.parameters / 1e6:.2f} M parameters, {options.rows} x {options.sequence} tokens a step, "
            f"{device}, {options.threads} threads, torch {torch.__version__}; "
            f"medians of {options.rounds} rounds of {options.steps} steps"
        )
        for kind in options.kinds:
            for precision in options.precisions:
                print(f"{kind:13} {precision:9} {compare(bench, kind, precision)}", flush=True)


def prepare(options: argparse.Namespace, folder: Path, device: torch.device) -> Bench:
    """The corpus, a tokenizer trained on it, and its tokens."""
    crawl = tuple(sorted((Path(__file__).parent.parent / "examples" / "crawl").glob("*.warc.gz")))
    corpus = folder / CORPUS
    settings = corpus_stage.Config.model_validate({"source": "crawl", "language": "ja", "workers": 1})
    corpus_stage.run(settings, Inputs({"crawl": crawl}), open_workspace(corpus))
    tokenizer = train_byte_level_bpe(texts(corpus), options.vocabulary)
    bench = Bench(options, tokenizer, corpus, {}, device, folder)
    config = bench.config("float32", masking=True)
    sources = token_sources(config, Inputs({CORPUS: (corpus,)}), tokenizer, open_workspace(folder / "tokens"))
    bench.sources.update(sources)
    return bench


def texts(corpus: Path) -> Iterator[str]:
    """All documents that are trained on."""
    return (row["text"] for row in iterate_documents(corpus, split=TRAIN, columns=["text"]))


def compare(bench: Bench, kind: str, precision: str) -> str:
    """Let the sides take turns; their useful tokens a second, and how many times that we make."""
    masking = kind == "documents"
    blocks = rows_of(bench, precision)
    turns: dict[str, Turn] = {
        "tsugiki": partial(our_turn, bench, precision, masking=masking),
        "bare loop": partial(bare_turn, bench, precision, blocks),
    }
    if importlib.util.find_spec("accelerate") is not None:
        grouped = [row for rows in blocks for row in rows]
        turns["Trainer grouped"] = partial(trainer_turn, bench, precision, grouped)
        if masking:
            turns["Trainer padded"] = partial(trainer_turn, bench, precision, whole_documents(bench))
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(bench.options.rounds):
        for name, turn in turns.items():
            seconds, tokens = in_new_process(turn, bench.options.threads)
            found[name] += [tokens / second for second in seconds]
    speeds = {name: statistics.median(values) for name, values in found.items()}
    ours = speeds["tsugiki"]
    return ", ".join(f"{name} {speed:,.0f} ({ours / speed:.2f} x)" for name, speed in speeds.items())


def in_new_process(turn: Turn, threads: int) -> tuple[list[float], float]:
    """Take a turn in a process of its own."""
    new = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=new, initializer=set_up, initargs=(threads,)) as pool:
        return pool.submit(turn).result()


def set_up(threads: int) -> None:
    """What holds for all sides."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=UserWarning)


def between(moments: Sequence[float]) -> list[float]:
    """Seconds of the steps that began at `moments`, without those to warm up."""
    return [float(second) for second in np.diff(moments)[WARM_UP_STEPS:]]


class Clocked(Alone):
    """The engine of one process, noting when each step begins."""

    moments: list[float]

    def train(self, batch: Batch, clip: float, *rest: Any, **more: Any) -> StepResult:
        """As the engine does."""
        self.moments.append(time.perf_counter())
        return super().train(batch, clip, *rest, **more)


def our_turn(bench: Bench, precision: str, *, masking: bool) -> tuple[list[float], float]:
    """The loop of `tsugiki train`, from its first to its last step."""
    plan = bench.plan(precision, masking=masking)
    decoder = Decoder(new_shape(plan.config.model, bench.tokenizer))  # type: ignore[arg-type]  # a preset
    initialise(decoder, 0)
    decoder.to(bench.device).train()
    config = plan.config
    optimizer = adamw(
        decoder.named_parameters(),
        learning_rate=config.learning_rate,
        betas=config.betas,
        epsilon=config.epsilon,
        weight_decay=config.weight_decay,
        decay_embeddings=config.decay_embeddings,
    )
    compute = Compute(
        bench.device, bfloat16=precision == "bfloat16", document_masking=masking, z_loss=config.z_loss
    )
    engine = Clocked(decoder, optimizer, compute, bench.options.rows)
    engine.moments = []
    out = bench.folder / "ours"
    shutil.rmtree(out, ignore_errors=True)
    run = Run(
        config=config,
        engine=engine,
        mixture=plan.mixture,
        validation=[],
        piece_bytes=bench.tokenizer.piece_bytes,
        identity=plan.identity,
        meter=meter_of(
            *(decoder.config, config.sequence_length, bench.device),
            processes=1,
            precision=precision,
            hardware=None,
        ),
    )
    with deterministic(bench.options.threads, bench.device):  # the peers do without, also in memory
        attention_of(config, [decoder], engine, bench.device, logging.getLogger("benchmark"))
        run_steps(run, open_workspace(out))
    # the last step has no successor: what follows it (a look at the weights, the checkpoint) ends the run
    return between(engine.moments), float(config.batch_tokens)


def rows_of(bench: Bench, precision: str) -> list[np.ndarray]:
    """The token ids of our steps, for the peers."""
    mixture = bench.plan(precision, masking=False).mixture
    return [mixture.batch(step).ids_BT for step in range(bench.steps)]


def bare_turn(bench: Bench, precision: str, blocks: list[np.ndarray]) -> tuple[list[float], float]:
    """A plain loop."""
    model = hf_model(bench).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batches = [torch.from_numpy(ids_BT).to(bench.device) for ids_BT in blocks]
    moments = []
    for ids_BT in batches:
        moments.append(time.perf_counter())
        optimizer.zero_grad()
        with torch.autocast(bench.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=ids_BT, labels=ids_BT).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
    return between([*moments, time.perf_counter()]), float(blocks[0].size)


def hf_model(bench: Bench) -> torch.nn.Module:
    """The peer's model of the same shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = new_shape(bench.config("float32", masking=True).model, bench.tokenizer)  # type: ignore[arg-type]
    return LlamaForCausalLM(LlamaConfig(**shape.to_hf())).to(bench.device)


def whole_documents(bench: Bench) -> list[np.ndarray]:
    """Documents in their order, each cut at the length of a sequence, as many as the steps take."""
    wanted, found = bench.steps * bench.options.rows, []
    for text in texts(bench.corpus):
        ids = bench.tokenizer.encode_batch([text])[0][: bench.options.sequence]
        found.append(np.asarray(ids, dtype=np.int64))
        if len(found) == wanted:
            break
    return found


def trainer_turn(bench: Bench, precision: str, rows: list[np.ndarray]) -> tuple[list[float], float]:
    """The Hugging Face Trainer on rows of any length, padded to the longest of each batch."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    moments: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_arguments: object, **_keywords: object) -> None:
            moments.append(time.perf_counter())

        def on_train_end(self, *_arguments: object, **_keywords: object) -> None:
            moments.append(time.perf_counter())

    arguments = TrainingArguments(
        str(bench.folder / "trainer"),
        per_device_train_batch_size=bench.options.rows,
        max_steps=bench.steps,
        use_cpu=bench.device.type == "cpu",
        bf16=precision == "bfloat16",
        optim="adamw_torch_fused",
        logging_steps=10,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    make: Callable[..., Trainer] = Trainer
    given = [{"input_ids": torch.from_numpy(row.astype(np.int64))} for row in rows]
    make(
        model=hf_model(bench), args=arguments, train_dataset=given, data_collator=padded, callbacks=[Clock()]
    ).train()
    useful = sum(len(row) for row in rows) / len(rows) * bench.options.rows
    return between(moments), useful


def padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of one batch: ids, mask, and labels that leave the padding out."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask_BT = torch.zeros_like(ids_BT)
    for number, row in enumerate(rows):
        ids_BT[number, : len(row["input_ids"])] = row["input_ids"]
        mask_BT[number, : len(row["input_ids"])] = 1
    return {
        "input_ids": ids_BT,
        "attention_mask": mask_BT,
        "labels": torch.where(mask_BT.bool(), ids_BT, -100),
    }


if __name__ == "__main__":
    main()
