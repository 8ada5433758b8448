"""What it costs to make batches: million tokens a second, and the share of a step that it takes.

    python benchmarks/feeding.py [--documents 50000] [--step-tokens-per-second 4500 50000 96000]

Token units of random documents (lengths log-normal, about 550 tokens in the mean, two sources) are mixed and
packed both ways. `share of a step` is the time that a rank makes its rows in over the time that it trains on
them at the given speed: 4,500 tokens a second is a 9-million-parameter model on two CPU cores, 50,000 a model
of about a billion parameters on one H100 at half of its peak (6 · 1.2e9 · 50,000 = 3.6e14 operations a
second), and 96,000 a whole node of eight at 7 billion parameters, fed by one core.

`restart` is what a process pays for its place in a long run: setting up a mixture of a million steps once,
when the schedule is gone through once, and again; then a batch at its start and at its end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tsugiki.dataset.mixture import Mixture
from tsugiki.dataset.settings import Packing
from tsugiki.dataset.tokenise import BYTES, DOCUMENTS, HEADER, TOKENS, UnitHeader, token_dtype
from tsugiki.dataset.tokens import TokenSource, open_tokens

STEPS = 40
ROWS = 16
LARGEST_SHARE = 0.01


@dataclass(frozen=True)
class OnlyIds:
    """What `open_tokens` asks of a tokenizer."""

    size: int
    sha256: str = "0" * 64


def main() -> None:
    """Print one line for each sequence length and packing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=50_000, help="documents of each source")
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 2048, 4096, 8192])
    parser.add_argument("--step-tokens-per-second", type=float, nargs="+", default=[4500, 50_000, 96_000])
    parser.add_argument("--restart-steps", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw = np.random.default_rng(0)
        begun = time.perf_counter()
        sources = [
            write_source(Path(folder) / name, name, options.documents, options.vocabulary, draw)
            for name in ("a", "b")
        ]
        tokens = sum(source.tokens for source in sources)
        print(f"{tokens / 1e6:.0f} M tokens written in {time.perf_counter() - begun:.1f} s")
        for length in options.lengths:
            for packing in ("concatenate", "best-fit"):
                measure(sources, length, packing, options.step_tokens_per_second)
        restart(sources, Path(folder) / "schedule", options.restart_steps)


def write_source(
    directory: Path, name: str, documents: int, vocabulary: int, draw: np.random.Generator
) -> TokenSource:
    """One unit of random documents."""
    directory.mkdir(parents=True)
    lengths = np.minimum(draw.lognormal(5.8, 1.0, documents).astype(np.int64) + 2, 100_000)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    dtype = token_dtype(vocabulary)
    (directory / TOKENS).write_bytes(draw.integers(0, vocabulary, offsets[-1]).astype(dtype).tobytes())
    (directory / DOCUMENTS).write_bytes(offsets.astype("<i8").tobytes())
    (directory / BYTES).write_bytes((3 * lengths).astype("<u4").tobytes())
    tokenizer = OnlyIds(vocabulary)
    header = UnitHeader(
        tokenizer_sha256=tokenizer.sha256,
        vocabulary_size=vocabulary,
        dtype=dtype,
        tokens=int(offsets[-1]),
        documents=documents,
        bytes=int(3 * offsets[-1]),
        split="train",
        source="random",
        source_sha256="",
    )
    (directory / HEADER).write_text(header.model_dump_json())
    return open_tokens(name, [directory], tokenizer)  # type: ignore[arg-type]


def measure(sources: list[TokenSource], length: int, packing: Packing, speeds: list[float]) -> None:
    """Time set-up and batches, and print a line."""
    begun = time.perf_counter()
    mixture = Mixture(
        sources,
        {"a": 0.7, "b": 0.3},
        steps=STEPS + 2,
        sequences_per_step=ROWS,
        sequence_length=length,
        seed=0,
        max_epochs=1e6,
        packing=packing,
    )
    set_up = time.perf_counter() - begun
    seconds = []
    for step in range(STEPS + 2):
        begun = time.perf_counter()
        mixture.batch(step)
        seconds.append(time.perf_counter() - begun)
    per_token = statistics.median(seconds[2:]) / (ROWS * length)
    shares = ", ".join(
        f"{per_token * speed:.4%}{' TOO MUCH' if per_token * speed > LARGEST_SHARE else ''} at {speed:,.0f}/s"
        for speed in speeds
    )
    padding = max(share.padding for share in mixture.shares)
    speed = f"{1e-6 / per_token:6.1f} Mtok/s"
    print(
        f"{length:5} {packing:11} set-up {set_up:.3f} s  {speed}  padding {padding:.4%}  "
        f"share of a step: {shares}"
    )


def restart(sources: list[TokenSource], directory: Path, steps: int) -> None:
    """Time a first and a second set-up of a long run, and batches at both of its ends."""
    for which in ("first", "next"):
        begun = time.perf_counter()
        mixture = Mixture(
            sources,
            {"a": 0.7, "b": 0.3},
            steps=steps,
            sequences_per_step=ROWS,
            sequence_length=4096,
            seed=0,
            max_epochs=1e9,
            directory=directory,
        )
        set_up = time.perf_counter() - begun
        mixture.batch(steps // 2)  # pages and epochs
        seconds = []
        for step in (0, steps - 2):
            begun = time.perf_counter()
            mixture.rows(step, 0, ROWS)
            seconds.append(f"{1e3 * (time.perf_counter() - begun):.1f} ms at step {step:,}")
        print(f"restart: {which} set-up of {steps:,} steps {set_up:.3f} s; a batch {', '.join(seconds)}")


if __name__ == "__main__":
    main()
