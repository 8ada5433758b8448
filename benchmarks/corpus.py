"""The corpus stage against its peers: the same files, one core each, in one run.

    python benchmarks/corpus.py [--crawl "examples/crawl/*.warc.gz"] [--language ja] [--memory]

Peers are installed from the registry into an environment of their own, `--peers` (made if it is not there:
datatrove with its extras, rensa, datasketch; about 1 GB). CPU time, not wall clock, so that a busy machine
disturbs little. The targets stand beside the ratios; the last line is everything as JSON. `--memory` adds the
stage's peak memory as the crawl grows 1, 4 and 16 times (some minutes more).
"""

from __future__ import annotations

import argparse
import glob
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from growing_crawl import write_crawl

from tsugiki.artifacts.manifest import read_manifest
from tsugiki.corpus.config import Config
from tsugiki.corpus.decode import decode
from tsugiki.corpus.extract import extract
from tsugiki.corpus.features import code_points, compute_features
from tsugiki.corpus.formats import read_items
from tsugiki.corpus.identify import identify
from tsugiki.corpus.items import Page, Tally
from tsugiki.corpus.minhash import shingles, signature
from tsugiki.corpus.prefilter import is_candidate
from tsugiki.corpus.repetition import DISTINCT, MOST, REPEATED, TOTAL, character_repetition
from tsugiki.corpus.segments import SegmentWriter
from tsugiki.corpus.toolbox import Resources, open_toolbox
from tsugiki.corpus.unit import Part, fill
from tsugiki.languages import LanguagePack, load_pack

HERE = Path(__file__).resolve().parent
HASHES, NGRAM = 800, 5
PEERS = ("datatrove[io,processing,multilingual]", "lxml_html_clean", "rensa", "datasketch")

Rows = list[dict[str, object]]


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
    rows = character_repetition(code_points(text), 10, 4).tolist()[1:]
    top = [row[MOST] / (row[TOTAL] or 1) for row in rows[:3]]
    return top + [row[REPEATED] / (row[DISTINCT] or 1) for row in rows[3:]]


def seconds_of(function: Callable[[], object], repeat: int = 3) -> float:
    """The median CPU time of `function`, after a call that warms up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def make_peers(directory: Path) -> Path:
    """The Python of the peers' environment, made if it is not there."""
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"making the peers' environment in {directory}")
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEERS], check=True)
    return python


def is_whole(file: Path) -> bool:
    """Whether a gzip file can be read to its end: datatrove aborts at a truncated one."""
    try:
        with gzip.open(file) as stream:
            while stream.read(1 << 20):
                pass
    except (EOFError, OSError, zlib.error):
        return False
    return True


def run_peer(python: Path, script: str, *arguments: str) -> dict[str, float]:
    """Run a peer's script in its environment; its last line is JSON."""
    command = [str(python), str(HERE / script), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(rows: Rows, what: str, count: int, ours: float, peers: dict[str, tuple[float, float]]) -> None:
    """Print our rate, and the ratio to each peer (name -> its seconds, the ratio that we aim at)."""
    print(f"\n{what}\n  {'tsugiki':<34}{count / ours:>12,.0f} /s")
    rows.append({"what": what, "tool": "tsugiki", "per_second": count / ours})
    for name, (seconds, target) in peers.items():
        ratio = seconds / ours
        print(f"  {name:<34}{count / seconds:>12,.0f} /s   ours is {ratio:.1f} x (target {target:g} x)")
        rows.append({"what": what, "tool": name, "per_second": count / seconds, "ratio": ratio})


def bench_steps(rows: Rows, pages: Sequence[Page], pack: LanguagePack) -> list[str]:
    """Rates of the single steps; returns the texts of the language's pages."""
    candidates = [p for p in pages if is_candidate(p.body, p.charset, p.url, pack, p.http_language)]
    decoded = [found for p in candidates if (found := decode(p.body, p.charset, pack))]
    texts = [text for one in decoded if (text := extract(one.text).text)]
    steps: dict[str, tuple[int, Callable[[], object]]] = {
        "prefilter": (
            len(pages),
            lambda: [is_candidate(p.body, p.charset, p.url, pack, p.http_language) for p in pages],
        ),
        "decode": (len(candidates), lambda: [decode(p.body, p.charset, pack) for p in candidates]),
        "extract (cascade)": (len(decoded), lambda: [extract(one.text) for one in decoded]),
        "identify": (len(texts), lambda: [identify(text, pack) for text in texts]),
        "features": (len(texts), lambda: [compute_features(text, pack) for text in texts]),
        "shingles and signature": (
            len(texts),
            lambda: [signature(shingles(text, NGRAM), HASHES) for text in texts],
        ),
    }
    print(f"steps, one core ({len(pages)} pages, {len(candidates)} candidates)")
    for name, (count, function) in steps.items():
        rate = count / seconds_of(function)
        print(f"  {name:<34}{rate:>12,.0f} /s")
        rows.append({"what": "step", "tool": name, "per_second": rate})
    return texts


def our_pipeline(files: Sequence[Path], language: str, extractor: str) -> float:
    """CPU seconds from WARC files to features and signatures on disk, everything on as by default."""
    config = Config.model_validate({"source": "x", "language": language, "extractor": extractor})
    toolbox = open_toolbox(config, Resources())
    parameters = config.near_duplicates

    def run() -> None:
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                stem = Path(scratch) / file.stem
                with SegmentWriter(stem, toolbox.schema, parameters.bands, parameters.rows) as writer:
                    fill(Part(file), toolbox, writer)

    return seconds_of(run)


def bench_memory(rows: Rows, sources: list[Path], language: str) -> None:
    """Peak memory and seconds of the whole stage as the crawl grows."""
    print("\nthe whole stage as the crawl grows, one process")
    with tempfile.TemporaryDirectory() as scratch:
        for copies in (1, 4, 16):
            crawl = Path(scratch) / f"crawl-{copies}"
            write_crawl(sources, crawl, copies)
            out = Path(scratch) / f"out-{copies}"
            command = [sys.executable, "-m", "tsugiki", "corpus", str(out), "--language", language]
            command += ["--source", f"{crawl}/*.warc.gz", "--heldout", "0.01", "--workers", "1"]
            subprocess.run(command, check=True, capture_output=True)
            manifest = read_manifest(out)
            memory = manifest.provenance["peak_memory_bytes"] / 1e6
            seconds, documents = manifest.provenance["seconds"], manifest.counts["documents"]
            print(f"  x{copies:<4}{documents:>8,} documents kept{seconds:>9.1f} s{memory:>8.0f} MB at most")
            row = {"what": f"memory x{copies}", "megabytes": memory, "seconds": seconds}
            rows.append({**row, "documents": documents})


def main() -> None:
    """Run everything and print it; the last line is the same as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crawl", default="examples/crawl/*.warc.gz")
    parser.add_argument("--language", default="ja")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"))
    parser.add_argument("--texts", type=int, default=200, help="texts for the slow peers")
    parser.add_argument("--memory", action="store_true", help="also measure memory as the crawl grows")
    options = parser.parse_args()
    files = [Path(name) for name in sorted(glob.glob(options.crawl))]  # noqa: PTH207 (absolute globs too)
    pack = load_pack(options.language)
    pages = [item for file in files for item in read_items(file, Tally()) if isinstance(item, Page)]
    rows: Rows = []
    few = bench_steps(rows, pages, pack)[: options.texts]
    python = make_peers(options.peers)
    for text in few:
        if not np.allclose(plain_ngram_features(text), our_ngram_features(text), atol=1e-12, rtol=0):
            raise SystemExit("the n-gram features differ from their definition")
    plain = seconds_of(lambda: [plain_ngram_features(text) for text in few], 1)
    compare(
        rows,
        f"n-gram features, n = 2..10, {len(few)} texts of {np.mean([*map(len, few)]):,.0f} characters",
        len(few),
        seconds_of(lambda: [our_ngram_features(text) for text in few]),
        {"plain Counter (equal values)": (plain, 25)},
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(few, file)
        file.flush()
        peers = run_peer(python, "peer_minhash.py", file.name)
    compare(
        rows,
        f"MinHash signatures from text, {HASHES} hashes",
        len(few),
        seconds_of(lambda: [signature(shingles(text, NGRAM), HASHES) for text in few]),
        {"rensa": (peers["rensa"], 2), "datasketch": (peers["datasketch"], 5)},
    )
    whole = [file for file in files if is_whole(file)]
    print(f"\n{len(whole)} of {len(files)} files are whole; the whole pipeline is compared on these")
    datatrove = run_peer(python, "peer_datatrove.py", options.language, *map(str, whole))["cpu_seconds"]
    pages = [item for file in whole for item in read_items(file, Tally()) if isinstance(item, Page)]
    for extractor, target in (("cascade", 8), ("trafilatura", 2)):
        compare(
            rows,
            f"WARC to features and signatures, extractor: {extractor}, pages read",
            len(pages),
            our_pipeline(whole, options.language, extractor),
            {"datatrove with trafilatura": (datatrove, target)},
        )
    if options.memory:
        bench_memory(rows, files, options.language)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
