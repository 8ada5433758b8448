"""How long a sweep over a million documents takes: synthetic Parquet, 24 features and the base columns.

    python benchmarks/corpus_sweep.py [--documents 1000000]

Prints seconds and the peak of the process' memory. The bar (issue 3, point 10): an answer in under 10 s.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.documents import KEPT, REJECTED, documents_schema, write_documents
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, write_manifest
from tsugiki.corpus.features import feature_types
from tsugiki.corpus.inspection.artifact import open_corpus
from tsugiki.corpus.inspection.cuts import cut_of
from tsugiki.corpus.inspection.quantiles import quantiles
from tsugiki.corpus.inspection.rows import Selection
from tsugiki.corpus.inspection.scenarios import parse_setting, scenarios_of, without_each_rule
from tsugiki.corpus.inspection.show import show
from tsugiki.corpus.inspection.sweep import sweep
from tsugiki.corpus.rules import rules_of
from tsugiki.languages import load_pack

ROWS = 16_384
LENGTHS = {"letters": (200, 9000), "language_letters": (200, 8000), "sentence_length_max": (50, 230)}
BETAS = {"language_share": (9, 3), "hiragana_share": (6, 6), "katakana_share": (2, 9)}


def make(root: Path, documents: int) -> None:
    """Write a corpus whose features are drawn from plausible distributions and whose reasons fit them."""
    pack = load_pack("ja")
    types, cuts = feature_types(pack), [cut_of(rule) for rule in rules_of(pack)]
    schema, rng = documents_schema(types), np.random.default_rng(0)
    for number, start in enumerate(range(0, documents, ROWS)):
        count = min(ROWS, documents - start)
        values: dict[str, Any] = {}
        for name, kind in types.items():
            whole = pa.types.is_integer(kind)
            values[name] = (
                rng.integers(*LENGTHS.get(name, (0, 20)), count)
                if whole
                else rng.beta(*BETAS.get(name, (1, 15)), count)
            )
        values["sentence_length_mean"] = rng.normal(40, 12, count)
        reasons: list[list[str]] = [[] for _ in range(count)]
        for cut in cuts:
            for row in np.flatnonzero(cut.rejects(np.asarray(values[cut.feature], float))):
                reasons[row].append(cut.reason)
        ids = [f"{start + row:032x}" for row in range(count)]
        values |= {"id": ids, "text": ["日本語のテキストです。" * 40] * count, "rejected_by": reasons}
        values |= {"url": [f"http://h{row % 997}.example/{row}" for row in range(count)]}
        columns = [pa.array(values.get(f.name, [None] * count), f.type) for f in schema]
        table = pa.Table.from_arrays(columns, schema=schema)
        kept = pa.array([not found for found in reasons])
        for part, mask in ((KEPT, kept), (REJECTED, pc.invert(kept))):
            write_documents(root / part / f"part-{number:05d}.parquet", table.filter(mask))
    payload = {"kind": "corpus"}
    manifest = Manifest(
        type=ArtifactType.DOCUMENTS, kind="corpus", code_version=1, identity=identity_of(payload),
        payload=payload, config={"language": "ja"}, files={}, counts={}, facts={}, provenance={},
    )  # fmt: skip
    write_manifest(root, manifest)


def timed(name: str, work: Callable[[], Any]) -> None:
    """Run and print."""
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{name:42} {seconds:6.2f} s   peak {peak:5.0f} MB")


def main() -> None:
    """Make the corpus and measure each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    wanted = parser.parse_args().documents
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        make(root, wanted)
        corpus = open_corpus(root)
        one = [parse_setting("hiragana_share=0.15,0.2,0.25", corpus)]
        grid = [
            parse_setting(f"{name}=0.1:0.28:0.02", corpus) for name in ("hiragana_share", "repeated_5grams")
        ]
        print(f"{wanted:,} documents, {len(corpus.features)} features")
        timed("three thresholds", lambda: sweep(corpus, scenarios_of(one)))
        timed("each rule taken away", lambda: sweep(corpus, without_each_rule(corpus)))
        timed("grid of 100", lambda: sweep(corpus, scenarios_of(grid, grid=True)))
        timed("three thresholds, five samples each", lambda: sweep(corpus, scenarios_of(one), 5))
        timed("quantiles of a feature", lambda: quantiles(corpus, "hiragana_share"))
        timed("show --reason", lambda: show(corpus, Selection(reason="hiragana_share")))
        timed("show --contains (reads all texts)", lambda: show(corpus, Selection(contains="ない言葉")))


if __name__ == "__main__":
    main()
