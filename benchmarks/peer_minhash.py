"""MinHash signatures by rensa and datasketch: `PEERS/bin/python peer_minhash.py TEXTS`.

TEXTS: a JSON file with a list of texts. Prints a line of JSON: the CPU seconds of each, 800 hashes over the
distinct character 5-grams, the best of three.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

HASHES, NGRAM = 800, 5


def grams(text: str) -> set[str]:
    """The distinct character n-grams; a shorter text is its own."""
    return {text[i : i + NGRAM] for i in range(max(1, len(text) - NGRAM + 1))}


def with_datasketch(text: str) -> object:
    """As its documentation shows it, in one batch."""
    import datasketch

    sketch = datasketch.MinHash(num_perm=HASHES)
    sketch.update_batch([gram.encode() for gram in grams(text)])
    return sketch


def with_rensa(text: str) -> object:
    """Its faster class, R-MinHash."""
    import rensa

    sketch = rensa.RMinHash(num_perm=HASHES, seed=42)
    sketch.update(list(grams(text)))
    return sketch.digest()


def main() -> None:
    """Measure both."""
    texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    tools: dict[str, Callable[[str], object]] = {"rensa": with_rensa, "datasketch": with_datasketch}
    found = {}
    for name, function in tools.items():
        function(texts[0])
        times = []
        for _ in range(3):
            start = time.process_time()
            for text in texts:
                function(text)
            times.append(time.process_time() - start)
        found[name] = min(times)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
