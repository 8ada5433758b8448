"""Near-duplicates of millions of synthetic signatures: speed, and memory that does not grow with them.

    python benchmarks/near_duplicates.py [--documents 750000 3000000] [--bands 40] [--memory-megabytes 16]

Band keys are made directly, in units of a fixed size, with a known structure: three quarters of the
documents are alone; the others form clusters of 2, 3, 4 and 7, and one template holds 1 % of all documents.
In a cluster each document shares one band with the document before and another one with the next, so only
all bands together find it. Each size runs in a process of its own. The clusters found are compared with the
known ones, document by document. Memory is the peak of RssAnon (what no file backs) above the start.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numba as nb
import numpy as np

from tsugiki.corpus.neardup.bands import band_edges
from tsugiki.corpus.neardup.components import Components
from tsugiki.corpus.neardup.survivors import choose_survivors, create_columns, kept_documents, summarise
from tsugiki.corpus.neardup.units import UnitIndex, blocks_of

UNIT_DOCUMENTS = 50_000


@nb.njit("void(int64, uint64[:, ::1], int64[::1])")
def _make(first: int, keys: np.ndarray, roots: np.ndarray) -> None:
    """The keys (bands, count) and the known roots of documents first..first + count - 1.

    Of every 64 documents the first 48 are alone and the last 16 are clusters of 2, 3, 4 and 7; every
    hundredth document, if it is one of the 48, is of the template, whose root is document 0.
    """
    bands = keys.shape[0]
    for i in range(keys.shape[1]):
        document = first + i
        offset = document % 64 - 48
        begin = 0 if offset < 2 else 2 if offset < 5 else 5 if offset < 9 else 9  # noqa: PLR2004
        place = max(0, offset - begin)  # in its cluster
        template = offset < 0 and document % 100 == 0
        roots[i] = 0 if template else document - place
        link = ((document - place) // 64 + place % 2) % bands
        for band in range(bands):
            owner = np.uint64(document - 1 if place and band == link else document)
            if template and band == 0:
                owner = np.uint64(0)
            value = owner * np.uint64(4096) + np.uint64(band + 1)
            value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            keys[band, i] = value ^ (value >> np.uint64(31))


def make_units(directory: Path, documents: int, bands: int) -> list[UnitIndex]:
    """Units with their band keys, and the known roots in `directory`/known."""
    units = []
    with (directory / "known").open("wb") as known:
        for number, block in enumerate(blocks_of(documents, UNIT_DOCUMENTS)):
            count = block.stop - block.start
            keys, roots = np.empty((bands, count), np.uint64), np.empty(count, np.int64)
            _make(block.start, keys, roots)
            keys.tofile(directory / f"u{number:05d}.bands")
            roots.tofile(known)
            units.append(UnitIndex(directory / f"u{number:05d}", block.start, count))
    return units


class Watch:
    """The peak of this process's anonymous memory above that at the start, sampled every two milliseconds."""

    def __init__(self) -> None:
        self.start = self.peak = _anonymous_bytes()
        self._running = True
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self._running:
            self.peak = max(self.peak, _anonymous_bytes())
            time.sleep(0.002)

    def stop(self) -> int:
        """End the watch; bytes."""
        self._running = False
        self._thread.join()
        return self.peak - self.start


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def measure(directory: Path, documents: int, bands: int, memory_bytes: int) -> dict[str, float]:
    """Run one size in this process."""
    start = time.perf_counter()
    units = make_units(directory, documents, bands)
    made = time.perf_counter() - start
    watch = Watch()
    start = time.perf_counter()
    edges = 0
    with Components(directory / "parents", documents) as components:
        for band in range(bands):
            edges += band_edges(units, bands, band, directory / "edges", memory_bytes=memory_bytes)
            components.union_file(directory / "edges")
        roots = components.roots()
        joined = time.perf_counter() - start
        known = np.memmap(directory / "known", np.int64, "r")
        wrong = sum(int((roots[b] != known[b]).sum()) for b in blocks_of(documents, UNIT_DOCUMENTS))
        columns = create_columns(directory, documents)
        clusters = choose_survivors(roots, columns, "newest", directory)
    kept = kept_documents(clusters.survivor, directory / "kept").size
    seconds = time.perf_counter() - start
    peak = watch.stop()
    if wrong or kept != summarise(clusters).kept:
        raise SystemExit(f"{wrong} of {documents} documents are in the wrong cluster")
    return {
        "documents": documents,
        "bands": bands,
        "seconds_to_make": round(made, 2),
        "seconds_to_join": round(joined, 2),
        "seconds": round(seconds, 2),
        "documents_per_second": round(documents / seconds),
        "keys_per_second": round(documents * bands / joined),
        "edges": edges,
        "kept": kept,
        "peak_anonymous_megabytes": round(peak / 2**20, 1),
    }


def main() -> None:
    """Run every size in a process of its own and print a table; the last line is the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[750_000, 3_000_000])
    parser.add_argument("--bands", type=int, default=40)
    parser.add_argument("--memory-megabytes", type=int, default=16)
    parser.add_argument("--directory", type=Path, help="where to put 8 bytes a document and band")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="near-duplicates-", dir=options.directory))
    try:
        if options.one:
            size = options.documents[0]
            print(json.dumps(measure(directory, size, options.bands, options.memory_megabytes << 20)))
            return
    finally:
        shutil.rmtree(directory)
    rows = []
    print(
        f"{'documents':>12} {'seconds':>9} {'documents/s':>12} {'keys/s':>14} {'kept':>11} {'RssAnon MB':>11}"
    )
    for size in options.documents:
        command = [sys.executable, __file__, "--one", "--documents", str(size), "--bands", str(options.bands)]
        command += ["--memory-megabytes", str(options.memory_megabytes)]
        command += ["--directory", str(options.directory)] if options.directory else []
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(run.stdout.splitlines()[-1])
        rows.append(row)
        print(
            f"{row['documents']:>12,} {row['seconds']:>9.1f} {row['documents_per_second']:>12,} "
            f"{row['keys_per_second']:>14,} {row['kept']:>11,} {row['peak_anonymous_megabytes']:>11.1f}",
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
