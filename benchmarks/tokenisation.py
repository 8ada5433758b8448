"""Our tokenising against Hugging Face's `encode_batch`: same tokenizer.json, same documents, all cores.

    python benchmarks/tokenisation.py DOCUMENTS... [--tokenizers DIRECTORY...] [--megabytes 8] [--repeats 3]

DOCUMENTS are directories that corpus stages have made. The tokenizers are those of model directories, and by
default two that are trained on the documents: a byte-level one (the Llama 3 kind) and one in SentencePiece's
style with byte fallback (the Llama 2 kind).

    encode_batch        tokenizers' method that everybody calls, the base of the ratios
    encode_batch_fast   the same without offsets
    choosing            the proof on a sample of 1 MB and on awkward strings: once a corpus, not in the others
    encoder             what was chosen: texts in memory to arrays of ids; a new one each time, unused before
    tokenise            the whole way: Parquet to token units on the disk, with bos and eos, documents checked

All take turns, so that whatever else the machine does hits each of them; medians are compared. Every
document's ids are compared with those of `encode_batch`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tsugiki.artifacts.documents import documents_schema, iterate_documents, write_documents
from tsugiki.dataset.encoders import fastest_encoder
from tsugiki.dataset.tokenise import tokenise
from tsugiki.dataset.tokens import open_tokens
from tsugiki.models.tokenizer import TextTokenizer, load_tokenizer, train_byte_level_bpe

SAMPLE_DOCUMENTS = 200
PART_DOCUMENTS = 10_000


def main() -> None:
    """Print a table for each tokenizer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents", nargs="+", type=Path)
    parser.add_argument("--tokenizers", nargs="*", type=Path, default=[])
    parser.add_argument("--size", type=int, default=8000, help="entries of the tokenizers that are trained")
    parser.add_argument(
        "--megabytes", type=float, default=8, help="text to encode; repeated if there is less"
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    texts = [row["text"] for path in options.documents for row in iterate_documents(path, columns=["text"])]
    size = sum(len(text.encode()) for text in texts)
    distinct = size / 1e6
    texts = grown(texts, options.megabytes * 1e6 / size)
    print(
        f"{len(texts):,} documents, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB "
        f"({distinct:.1f} MB of it distinct), {len(os.sched_getaffinity(0))} cores, "
        f"tokenizers {version('tokenizers')}, medians of {options.repeats}"
    )
    tokenizers = {str(path): load_tokenizer(path) for path in options.tokenizers} or {
        f"byte-level, {options.size}": train_byte_level_bpe(texts, options.size),
        f"SentencePiece style, {options.size}": sentencepiece_style(texts, options.size),
    }
    for name, tokenizer in tokenizers.items():
        compare(name, tokenizer, texts, options.repeats)


def grown(texts: Sequence[str], factor: float) -> list[str]:
    """The texts, and copies of them with their lines in another order, up to `factor` times as many."""
    draw = np.random.default_rng(0)
    out = list(texts)
    for _ in range(max(0, math.ceil(factor) - 1)):
        for text in texts:
            lines = text.split("\n")
            draw.shuffle(lines)
            out.append("\n".join(lines))
    return out[: max(1, round(len(texts) * factor))]


def compare(name: str, tokenizer: TextTokenizer, texts: list[str], repeats: int) -> None:
    """Time all ways in turns, prove the ids equal, and print the table."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds: dict[str, list[float]] = {}
    choosing: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        source = write_parts(Path(folder) / "source", texts)
        expected = tokenizer.tokenizer.encode_batch(texts, add_special_tokens=False)
        for repeat in range(repeats):
            begun = time.perf_counter()
            fastest_encoder(tokenizer, texts[:SAMPLE_DOCUMENTS])
            choosing.append(time.perf_counter() - begun)
            encoder, other = (fastest_encoder(tokenizer, []) for _ in range(2))
            out = Path(folder) / f"units-{repeat}"
            ways: dict[str, Callable[[], object]] = {
                "encode_batch": lambda: tokenizer.tokenizer.encode_batch(texts, add_special_tokens=False),
                "encode_batch_fast": lambda: tokenizer.tokenizer.encode_batch_fast(
                    texts, add_special_tokens=False
                ),
                "encoder": lambda encoder=encoder: encoder.encode(texts),
                "tokenise": lambda out=out, other=other: tokenise(source, tokenizer, out, encoder=other),
            }
            for way, call in ways.items():
                begun = time.perf_counter()
                call()
                seconds.setdefault(way, []).append(time.perf_counter() - begun)
        encoded = encoder.encode(texts)
        units = open_tokens("benchmark", sorted(out.iterdir()), tokenizer)
        frame = (tokenizer.bos_id is not None, tokenizer.eos_id is not None)
        equal = sum(
            encoded.text(number).tolist() == one.ids
            and units.document(number)[frame[0] : len(one.ids) + frame[0]].tolist() == one.ids
            for number, one in enumerate(expected)
        )
    tokens = len(encoded.ids) / 1e6
    print(f"\n{name}: {encoder.name} ({encoder.reason}); {equal:,} of {len(texts):,} documents equal")
    base = statistics.median(seconds["encode_batch"])
    for way, times in seconds.items():
        median = statistics.median(times)
        speed = f"{megabytes / median:7.1f} MB/s  {tokens / median:6.2f} Mtok/s"
        print(f"  {way:18} {speed}  {base / median:5.1f} x")
    print(f"  choosing took {statistics.median(choosing):.2f} s")


def write_parts(directory: Path, texts: Sequence[str]) -> Path:
    """The texts as documents of the training split."""
    schema = documents_schema({})
    for number, first in enumerate(range(0, len(texts), PART_DOCUMENTS)):
        rows = [
            dict.fromkeys(schema.names) | {"id": str(place), "text": text, "split": "train"}
            for place, text in enumerate(texts[first : first + PART_DOCUMENTS], start=first)
        ]
        path = directory / "documents" / f"part-{number:05d}.parquet"
        write_documents(path, pa.Table.from_pylist(rows, schema=schema))
    return directory


def sentencepiece_style(texts: Sequence[str], size: int) -> TextTokenizer:
    """BPE with byte fallback and ▁ for spaces, laid out as Llama 2's tokenizer.json is."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="removed"),
            pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=True),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - 259,
        limit_alphabet=size // 4,
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    learner.train_from_iterator(texts[:2000], trainer)
    learnt = json.loads(learner.to_str())["model"]
    specials = ["<unk>", "<s>", "</s>"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    numbered = {piece: number for number, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in learnt["merges"]]
    tokenizer = Tokenizer(
        models.BPE(numbered, merges, byte_fallback=True, unk_token=specials[0], fuse_unk=True)
    )
    tokenizer.normalizer = learner.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return TextTokenizer(tokenizer, 1, 2)


if __name__ == "__main__":
    main()
