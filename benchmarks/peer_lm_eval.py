"""lm-evaluation-harness's Hugging Face backend on requests from a file; `evaluation.py` runs it.

    PYTHON benchmarks/peer_lm_eval.py MODEL REQUESTS.json ANSWERS.json --batch 16 --threads 2

Needs `pip install "lm_eval[hf]"` in an environment of its own. Requests: a list of
{"kind": "loglikelihood", "context", "continuation"} and {"kind": "generate_until", "context", "tokens"}.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Load the model, warm up on the first request, answer all, write answers and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("requests", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()

    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(given.threads)
    model = HFLM(pretrained=str(given.model), device="cpu", dtype="float32", batch_size=given.batch)
    requests = json.loads(given.requests.read_text())
    kind = requests[0]["kind"]
    instances = [
        Instance(
            kind,
            {},
            (one["context"], one["continuation"])
            if kind == "loglikelihood"
            else (one["context"], {"until": one["stops"], "max_gen_toks": one["tokens"], "do_sample": False}),
            number,
        )
        for number, one in enumerate(requests)
    ]
    ask = model.loglikelihood if kind == "loglikelihood" else model.generate_until
    ask(instances[:1], disable_tqdm=True)
    begun = time.perf_counter()
    answers = ask(instances, disable_tqdm=True)
    seconds = time.perf_counter() - begun
    if kind == "loglikelihood":
        answers = [value for value, _ in answers]
    given.answers.write_text(json.dumps({"seconds": seconds, "answers": answers}))


if __name__ == "__main__":
    main()
