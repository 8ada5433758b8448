"""datatrove on WARC files, in its own environment: `PEERS/bin/python peer_datatrove.py LANGUAGE FILE...`.

The pipeline of FineWeb-2 (huggingface/fineweb-2, fineweb-2-pipeline.py) as far as it runs without a network:
WARC, Trafilatura, Gopher repetition and quality, FineWeb quality, MinHash signatures. Language identification
is left out (its model is a download), which is in datatrove's favour. One task in one process, as one core
would run it. Prints a line of JSON: documents, and CPU seconds of this process and its children, imports left
out.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import WarcReader
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import load_word_tokenizer


def cpu_seconds() -> float:
    """User and system seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    """Run it over the files of the command line."""
    language = {"ja": Languages.japanese, "en": Languages.english}[sys.argv[1]]
    load_word_tokenizer(language).word_tokenize("warm-up です。")
    with tempfile.TemporaryDirectory() as scratch:
        crawl = Path(scratch) / "crawl"
        crawl.mkdir()
        for name in sys.argv[2:]:
            (crawl / Path(name).name).symlink_to(Path(name).resolve())
        steps = [
            WarcReader(str(crawl), glob_pattern="*.warc.gz"),
            Trafilatura(favour_precision=True),
            GopherRepetitionFilter(language=language),
            FineWebQualityFilter(language=language),
            GopherQualityFilter(
                language=language, min_avg_word_length=1, max_avg_word_length=10, min_stop_words=0
            ),
            MinhashDedupSignature(
                output_folder=f"{scratch}/signatures", config=MinhashConfig(), language=language
            ),
        ]
        executor = LocalPipelineExecutor(steps, tasks=1, workers=1, logging_dir=f"{scratch}/logs")
        start = cpu_seconds()
        statistics = executor.run()
        seconds = cpu_seconds() - start
    documents = next(s.stats["documents"].total for s in statistics.stats if "documents" in s.stats)
    print(json.dumps({"tool": "datatrove", "documents": documents, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
