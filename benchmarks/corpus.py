"""The corpus stage against its peers, on the same input, in one process and on one core.

    python benchmarks/corpus.py [--crawl "examples/crawl/*.warc.gz"] [--language ja] [--repeat 5]

CPU time (not wall clock, so that a busy machine disturbs little), median of the repetitions, after a warm-up
that compiles. Peers that are not installed are left out (`pip install datasketch rensa` adds two).
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tsugiki.corpus import kernels
from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract_text
from tsugiki.corpus.features import code_points, compute_features
from tsugiki.corpus.identify import identify
from tsugiki.corpus.minhash import shingles, signature
from tsugiki.corpus.pipeline import Settings, process_file
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.read import Page, Tally, read_warc
from tsugiki.languages import LanguagePack, load_pack

HASHES = 800
NGRAM = 5


def plain_ngram_features(text: str) -> list[float]:
    """The repetition features with `collections.Counter`, straight from their definition."""
    values = []
    for n in range(2, 11):
        counts = Counter(text[i : i + n] for i in range(len(text) - n + 1))
        if n < NGRAM:
            values.append(max(counts.values(), default=0) / (sum(counts.values()) or 1))
        else:
            values.append(sum(count > 1 for count in counts.values()) / (len(counts) or 1))
    return values


def our_ngram_features(text: str) -> list[float]:
    """The same values by the kernel."""
    rows = kernels.ngram_counts(code_points(text), 2, 10).tolist()
    top = [row[3] / (row[0] or 1) for row in rows[:3]]
    return top + [row[2] / (row[1] or 1) for row in rows[3:]]


def numpy_minhash(values: np.ndarray) -> np.ndarray:
    """MinHash as datatrove computes it: (a·x + b) mod (2^61 - 1) with numpy broadcasting."""
    rng = np.random.default_rng(0)
    prime = np.uint64((1 << 61) - 1)
    a, b = rng.integers(1, int(prime), (2, 1, HASHES), dtype=np.uint64)
    return np.asarray(((values[:, None] * a + b) % prime).min(axis=0))


def peers_of_minhash() -> dict[str, Callable[[str], object]]:
    """Signature functions by name, as far as installed."""
    found: dict[str, Callable[[str], object]] = {
        "numpy, as datatrove": lambda text: numpy_minhash(shingles(text, NGRAM))
    }
    if importlib.util.find_spec("datasketch"):
        import datasketch

        def with_datasketch(text: str) -> object:
            sketch = datasketch.MinHash(num_perm=HASHES)
            sketch.update_batch([gram.encode() for gram in _grams(text)])
            return sketch

        found["datasketch"] = with_datasketch
    if importlib.util.find_spec("rensa"):
        import rensa

        def with_rensa(text: str) -> object:
            sketch = rensa.RMinHash(num_perm=HASHES, seed=42)
            sketch.update(list(_grams(text)))
            return sketch.digest()

        found["rensa"] = with_rensa
    return found


def _grams(text: str) -> set[str]:
    return {text[i : i + NGRAM] for i in range(max(1, len(text) - NGRAM + 1))}


def seconds_of(function: Callable[[], object], repeat: int) -> float:
    """The median CPU time of `function`."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def pages_of(files: Sequence[Path]) -> list[Page]:
    """All HTML pages of the files."""
    return [page for file in files for page in read_warc(file, Tally())]


def compare(
    rows: list[dict[str, object]], what: str, count: int, ours: float, peers: dict[str, float]
) -> None:
    """Print our rate and the ratio to each peer; keep the figures in `rows`."""
    print(f"\n{what}\n  {'tsugiki':<28}{count / ours:>12,.0f} /s")
    rows.append({"what": what, "tool": "tsugiki", "per_second": count / ours, "ratio": 1.0})
    for name, seconds in peers.items():
        print(f"  {name:<28}{count / seconds:>12,.0f} /s   ours is {seconds / ours:.1f} x")
        rows.append({"what": what, "tool": name, "per_second": count / seconds, "ratio": seconds / ours})


def bench_steps(pages: Sequence[Page], pack: LanguagePack, repeat: int) -> list[str]:
    """Rates of the single steps; returns the texts of the language's pages."""
    decoded = [(page, found) for page in pages if (found := decode(page.body, page.charset, pack))]
    candidates = [(page, found) for page, found in decoded if is_candidate(found, page.url, pack)]
    texts = [text for _, found in candidates if (text := extract_text(found.text))]
    steps: dict[str, tuple[int, Callable[[], object]]] = {
        "decode": (len(pages), lambda: [decode(page.body, page.charset, pack) for page in pages]),
        "prefilter": (len(decoded), lambda: [is_candidate(f, page.url, pack) for page, f in decoded]),
        "identify": (len(texts), lambda: [identify(text, pack) for text in texts]),
        "features": (len(texts), lambda: [compute_features(text, pack) for text in texts]),
    }
    print("steps, one core")
    for name, (count, function) in steps.items():
        print(f"  {name:<28}{count / seconds_of(function, repeat):>12,.0f} /s")
    return texts


def main() -> None:
    """Run everything and print it; the last line is the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crawl", default="examples/crawl/*.warc.gz")
    parser.add_argument("--language", default="ja")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--texts", type=int, default=200, help="texts for the slow peers")
    options = parser.parse_args()
    files = [Path(name) for name in sorted(glob.glob(options.crawl))]  # noqa: PTH207 (absolute globs too)
    pack = load_pack(options.language)
    pages = pages_of(files)
    rows: list[dict[str, object]] = []
    texts = bench_steps(pages, pack, options.repeat)
    few = texts[: options.texts]
    for text in few:
        if not np.allclose(plain_ngram_features(text), our_ngram_features(text), atol=1e-12, rtol=0):
            raise SystemExit("the n-gram features differ from their definition")
    compare(
        rows,
        f"n-gram features, n = 2..10, {len(few)} texts of {np.mean([*map(len, few)]):,.0f} characters",
        len(few),
        seconds_of(lambda: [our_ngram_features(text) for text in few], options.repeat),
        {"plain Counter": seconds_of(lambda: [plain_ngram_features(text) for text in few], 1)},
    )
    compare(
        rows,
        f"MinHash signatures from text, {HASHES} hashes",
        len(few),
        seconds_of(lambda: [signature(shingles(text, NGRAM), HASHES) for text in few], options.repeat),
        {
            name: seconds_of(lambda run=run: [run(text) for text in few], 1)  # type: ignore[misc]
            for name, run in peers_of_minhash().items()
        },
    )
    settings = {name: Settings(options.language, extractor=name) for name in ("resiliparse", "trafilatura")}
    times = {
        name: seconds_of(lambda value=value: [process_file(file, value) for file in files], 1)  # type: ignore[misc]
        for name, value in settings.items()
    }
    compare(
        rows,
        "WARC to features and signatures, pages read",
        len(pages),
        times["resiliparse"],
        {"the same with trafilatura": times["trafilatura"]},
    )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
