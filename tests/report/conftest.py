"""A run directory written through the artifacts API, with plausible figures: what the demo would leave.

Also a parser that takes the report apart the way a browser's would.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tsugiki.artifacts.contract import ArtifactType
from tsugiki.artifacts.files import read_json, write_json, write_text
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
from tsugiki.artifacts.metrics import MetricsLog
from tsugiki.artifacts.scores import write_scores

Row = dict[str, Any]
GRAPH: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "japanese": ("corpus", ()),
    "english": ("corpus", ()),
    "base": ("train", ("english",)),
    "vocabulary": ("vocabulary", ("base", "japanese", "english")),
    "adapted": ("train", ("vocabulary", "japanese", "english")),
    "control": ("train", ("base", "japanese", "english", "adapted")),
    "scores": ("evaluate", ("base", "adapted", "control", "japanese", "english")),
}
RECIPE = (
    "recipe: demo-ja\nlanguage: ja\nstages:\n  japanese: {kind: corpus, source: examples/crawl/*.warc.gz}\n"
)
HOSTS = ("reference.debian.example", "gimp-help.example", "lilypond.example", "libreoffice-help.example")
BITS: Mapping[str, Mapping[str, float]] = {
    "japanese": {"base": 3.412, "adapted": 2.087, "control": 2.164},
    "english": {"base": 2.231, "adapted": 2.405, "control": 2.377},
}
LANGUAGE = {"japanese": "ja", "english": "en"}
PROMPTS = (
    ("ja", "パッケージ管理システムは、", "ソフトウェアの導入と更新を容易にします。依存関係も解決されます。"),
    ("en", "The package manager keeps track of", " every file that a package installs."),
    ("ja", "画像を開くには、メニューから", "「ファイル」を選び、次に「開く」をクリックしてください。"),
)  # fmt: skip
OUTPUTS = {
    "base": "the the file of 、 a the option is set to the value of the file",
    "adapted": "次のコマンドを実行することで、パッケージをインストールすることができます。",
    "control": "次のように、このようなパッケージの設定ファイルを使うことができます。",
}
HOST = {
    "cpu": "Example CPU @ 2.40GHz",
    "cores": 2,
    "memory_bytes": 8_200_000_000,
    "system": "Linux 6.1 x86_64",
    "device": "cpu",
}


def write_run(
    root: Path,
    *,
    finished: tuple[str, ...] = tuple(GRAPH),
    graph: Mapping[str, tuple[str, tuple[str, ...]]] = GRAPH,
    comparison: Callable[[Row], None] | None = None,
    facts: Callable[[str, Row], None] | None = None,
) -> Path:
    """Write a run into `root`; `comparison` and `facts` may change what the stages recorded."""
    root.mkdir(parents=True, exist_ok=True)
    write_text(root / "recipe.yaml", RECIPE)
    stages = {name: {"kind": kind, "inputs": list(inputs)} for name, (kind, inputs) in graph.items()}
    about = {"recipe": "demo-ja", "language": "ja", "description": "A small English model learns Japanese."}
    write_json(root / "run.json", {**about, "scale": None, "order": list(graph), "stages": stages})
    for index, (name, (kind, inputs)) in enumerate(graph.items()):
        if name in finished:
            write_stage(root, name, kind, inputs, index, comparison=comparison, facts=facts)
    return root


def identity_in(root: Path, name: str) -> str:
    """The identity of a finished stage."""
    path = root / name / "manifest.json"
    return str(read_json(path)["identity"]) if path.exists() else "0" * 16


def write_stage(
    root: Path,
    name: str,
    kind: str,
    inputs: tuple[str, ...],
    index: int,
    *,
    comparison: Callable[[Row], None] | None = None,
    facts: Callable[[str, Row], None] | None = None,
) -> None:
    """Write one finished stage: its files, then its manifest."""
    place = root / name
    place.mkdir(exist_ok=True)
    counts, found, type_ = {
        "corpus": corpus_record,
        "vocabulary": vocabulary_record,
        "train": train_record,
        "evaluate": evaluate_record,
    }[kind](name, place)
    if comparison is not None and kind == "evaluate":
        document = comparison_document()
        comparison(document)
        write_json(place / "comparison.json", document)
    if facts is not None:
        facts(name, found)
    payload = {
        "kind": kind,
        "code_version": 1,
        "config": {"seed": 0},
        "inputs": {one: identity_in(root, one) for one in inputs},
    }
    provenance = {
        "started": f"2026-11-21T05:0{index}:00+00:00",
        "finished": f"2026-11-21T05:0{index}:48+00:00",
        "seconds": 18.5 + 9.25 * index,
        "attempts": 1,
        "peak_memory_bytes": 900_000_000 + 160_000_000 * index,
        "command": "tsugiki run recipes/demo-ja.yaml",
        "commit": "1ac54d0f00d1ac54d0f00d1ac54d0f00d1ac54d0",
        "dirty": False,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "tsugiki": "0.1.0"},
        "host": HOST,
    }
    config: Row = {"seed": 0, "language": LANGUAGE.get(name, "ja"), "data": dict.fromkeys(inputs, 1.0)}
    if kind in {"train", "vocabulary"}:
        config["model"] = inputs[0] if name != "base" else {"preset": "llama-mini"}
    manifest = Manifest(
        type=type_, kind=kind, code_version=1, identity=identity_of(payload), payload=payload, config=config,
        files=content_files(place), counts=counts, facts=found, provenance=provenance,
    )  # fmt: skip
    write_manifest(place, manifest)


Record = tuple[Row, Row, ArtifactType]


def corpus_record(name: str, place: Path) -> Record:
    """A corpus: counts and facts."""
    write_text(place / "documents" / "note.txt", f"{name}\n")
    funnel = [("records", 3120), ("HTML responses", 2874), ("decoded", 2861), ("text extracted", 2640)]
    funnel += [(f"in {name}", 1032), ("passed the rules", 871), ("near-duplicates removed", 742)]
    reasons = [("language", 1608, 1540), ("too_short", 96, 61), ("repeated_lines", 74, 40)]
    reasons += [("few_periods", 31, 12), ("near_duplicate", 129, 129), ("blocked_host", 3, 0)]
    samples = [
        ("too_short", f"http://{HOSTS[0]}/ch01.{LANGUAGE[name]}.html", "次へ 前へ 目次 ホーム"),
        ("repeated_lines", f"http://{HOSTS[1]}/index.html", "索引\n索引\n索引\nページ 1\nページ 2\nページ 2"),
        (
            "language",
            f"http://{HOSTS[2]}/index.de.html",
            "Dieses Handbuch beschreibt den Notensatz mit LilyPond.",
        ),
        (
            "near_duplicate",
            f"http://{HOSTS[3]}/main0101.html",
            "このヘルプページでは、マクロの実行方法を説明します。",
        ),
    ]
    facts = {
        "funnel": [{"step": step, "documents": n, "characters": n * 2210} for step, n in funnel],
        "reasons": [{"reason": r, "documents": n, "alone": alone} for r, n, alone in reasons],
        "rejected_samples": [{"reason": r, "url": u, "text": t} for r, u, t in samples],
        "skipped_records": {"not HTML": 210, "redirect": 31, "empty body": 5},
        "warnings": [{"file": "crawl-03.warc.gz", "offset": 918273, "message": "gzip member cut off"}],
        "encodings": {"utf-8": 2702, "shift_jis": 81, "euc-jp": 60, "iso-2022-jp": 18},
        "hosts": [{"host": h, "documents": 300 - 60 * i, "characters": 640_000 - 130_000 * i}
                  for i, h in enumerate(HOSTS)],
        "languages": {LANGUAGE[name]: 1032, "de": 61, "zh": 12},
        "similarity_histogram": [{"from": i / 20, "to": (i + 1) / 20, "documents": max(0, 40 - 6 * i)}
                                 for i in range(20)],
        "near_duplicates": {"clusters": 88, "removed": 129, "largest": 9},
        "split": {"train": 668, "heldout": 74, "groups": 655, "largest_group": 14,
                  "max_similarity": 0.313, "max_containment": 0.444, "threshold": 0.5,
                  "method": "whole groups of pages linked by similarity"},
        **corpus_details(),
    }  # fmt: skip
    facts["near_duplicates"] |= {
        "sizes": [{"from": 1, "to": 1, "clusters": 600, "documents": 600},
                  {"from": 2, "to": 2, "clusters": 70, "documents": 140},
                  {"from": 3, "to": 4, "clusters": 18, "documents": 77}],
        "bands": 40, "rows": 20,
    }  # fmt: skip
    counts = {"documents": 742, "characters": 1_640_000, "bytes": 4_310_000, "train_documents": 668,
              "heldout_documents": 74, "records": 3120, "rejected": 1898}  # fmt: skip
    return counts, facts, ArtifactType.DOCUMENTS


def corpus_details() -> Row:
    """What later versions of the corpus stage record besides."""
    shares = [
        {"from": i / 40, "to": (i + 1) / 40, "documents": 40 + i, "kept": 0 if i < 8 else 30 + i}
        for i in range(4, 24)
    ]
    edges = [(100, 126), (126, 158), (158, 200), (200, 251), (251, 316), (316, 398), (398, 501), (501, None)]
    letters = [
        {"from": low, "to": high, "documents": 9 if low < 501 else 800, "kept": 8 * (low > 390)}
        for low, high in edges
    ]
    appeal = {
        "url": f"http://{HOSTS[0]}/appeal",
        "matched": "会員登録",
        "text": "季節の便りについての文章です。",
    }
    return {
        "histograms": [
            {"feature": "hiragana_share", "bins": shares,
             "rules": [{"name": "hiragana_share", "sign": "<", "threshold": 0.2,
                        "rejected": 170, "alone": 12}]},
            {"feature": "letters", "bins": letters,
             "rules": [{"name": "letters", "sign": "<", "threshold": 400, "rejected": 54, "alone": 0}]},
            {"feature": "kanji_share", "bins": shares,
             "rules": [{"name": "kanji_share", "sign": ">=", "threshold": 0.9, "rejected": 0, "alone": 0}]},
        ],
        "host_filter": {
            "rules": [{"name": "host:ng_share>0.005", "threshold": 0.005}], "hosts": 31, "blocked_hosts": 1,
            "documents": 27,
            "blocked": [{"host": "blocked.example", "documents": 27, "reasons": ["host:ng_share>0.005"],
                         "ng_documents": 9, "dating_documents": 0, "appeal": [appeal]}],
        },
        "decoding": {"chosen_by": {"http header": 1201, "meta": 622}, "replaced": 4, "undecodable": 13},
        "extraction": {"extractors": {"resiliparse": 2600, "trafilatura": 63}, "empty": 211, "too_deep": 2},
        "cleaning": {"changed": 120, "counts": {"footer_lines": 333}, "too_short": 4},
        "contamination": {"items": 12_000, "documents": 2, "hits": [{"item": "quiz/17", "documents": 2}]},
        "prefilter": {"pages": 2861, "candidates": 1412},
    }  # fmt: skip


def vocabulary_record(name: str, place: Path) -> Record:
    """An extended vocabulary."""
    write_text(place / "tokenizer.json", "{}\n")
    savings = []
    for dataset, rate in (("japanese", (2.31, 0.74)), ("english", (0.27, 0.27))):
        for index, host in enumerate(HOSTS):
            characters = 240_000 - 50_000 * index
            before, after = (round(characters * r * (1 + 0.06 * index)) for r in rate)
            size = characters * 3 if dataset == "japanese" else characters
            savings.append({"dataset": dataset, "language": LANGUAGE[dataset], "domain": host,
                            "documents": 180 - index, "characters": characters, "bytes": size,
                            "tokens_before": before, "tokens_after": after})  # fmt: skip
    words = ["ファイル", "設定", "します。", "パッケージ", "システム", "する", "こと", "場合", "コマンド"]
    facts = {
        "added": 2048, "base_size": 4096, "size": 6144, "unreachable": 0,
        "round_trip": {"documents": 742, "failures": 0, "altered_by_base": 3},
        "sentencepiece": {"documents": 742, "differences": 0, "base_differences": 1},
        "curve": [{"pieces": pieces, "tokens": tokens, "characters": 108_000, "bytes": 280_000}
                  for pieces, tokens in ((0, 211_659), (256, 110_656), (1024, 72_288), (2048, 59_349))],
        "old_text_parity": {"max_abs_logit_difference": 0.0, "tolerance": 0.0, "texts": 64},
        "transformers_parity": {"max_abs_difference": 3.1e-06, "tolerance": 1e-4},
        "savings": savings,
        "new_row_norms": {"quantiles": [0.4, 0.6, 0.8, 1.0, 1.2], "old_quantiles": [0.5, 0.7, 0.9, 1.1, 1.4]},
        "coverage": {"distinct_characters": 1840, "characters_single_token_before": 0.02,
                     "characters_single_token_after": 0.44, "occurrences_single_token_before": 0.04,
                     "occurrences_single_token_after": 0.93},
        "examples": [{"text": word, "count": 900 - 40 * i} for i, word in enumerate(words)],
        "unused_share": 0.013,
    }  # fmt: skip
    return {"vocabulary_size": 6144, "parameters": 3_900_000}, facts, ArtifactType.MODEL


def train_record(name: str, place: Path) -> Record:
    """A train stage with the measurements of its steps."""
    write_text(place / "config.json", "{}\n")
    metrics = MetricsLog(place / "metrics.jsonl")
    start, end = {"base": (7.9, 2.2), "adapted": (3.6, 2.15), "control": (3.4, 2.25)}.get(name, (4.0, 2.0))
    rng = random.Random(name)
    steps, tokens = 146, 0
    for step in range(1, steps + 1):
        tokens += 4096
        share = 1 - math.exp(-step / 30)
        bits = start + (end - start) * share + rng.gauss(0, 0.06)
        rate = 4e-3 * min(step / 15, 0.55 + 0.45 * math.cos(math.pi * step / steps))
        metrics.append(step=step, loss=bits * 1.9, bits_per_byte=bits, learning_rate=rate, tokens=tokens,
                       tokens_per_second=9800.0 + rng.gauss(0, 90),
                       gradient_norm=0.6 + rng.random() * 0.3 + 2 / step)  # fmt: skip
    metrics.append(step=steps, loss=end * 1.9, bits_per_byte=end, learning_rate=4e-4, tokens=tokens,
                   gradient_norm=0.6, tokens_per_second=9800.0)  # fmt: skip
    metrics.append(event="validation", dataset="japanese", after_step=steps, tokens=tokens, bits_per_byte=end)
    metrics.close()
    own = {"english": 1.0} if name == "base" else {"japanese": 0.9, "english": 0.1}
    validation = [
        {"dataset": d, "step": s, "tokens": s * 4096, "bits_per_byte": target + 1.1 * math.exp(-s / 40)}
        for d, target in (("japanese", end), ("english", 2.4))
        for s in ((36, 73, 109, 146) if name != "base" else ())
    ]
    facts = {
        "sources": [{"dataset": d, "weight": w, "tokens": round(tokens * w), "bytes": round(tokens * w * 3.9),
                     "epochs": 0.81 * w, "available_tokens": 1_240_000} for d, w in own.items()],
        "parity": {"max_abs_difference": 4.2e-06, "tolerance": 1e-4},
        "first_loss": start * 1.9, "final_loss": end * 1.9, "validation": validation,
        "precision": "float32", "device": "cpu", "threads": 2,
    }  # fmt: skip
    counts = {"tokens": tokens, "steps": steps, "parameters": 3_900_000 if name == "adapted" else 3_370_000,
              "vocabulary_size": 6144 if name == "adapted" else 4096, "training_flops": 1.234e13,
              "tokens_per_second": 9814.3, "documents": 668}  # fmt: skip
    return counts, facts, ArtifactType.MODEL


def evaluate_record(name: str, place: Path) -> Record:
    """An evaluate stage: rows of scores and their comparison."""
    rng = random.Random(5)
    rows = []
    for dataset, values in BITS.items():
        for page in range(74):
            hard = rng.gauss(0, 0.35)
            for model, value in values.items():
                rows.append({"model": model, "task": "bits-per-byte", "dataset": dataset,
                             "language": LANGUAGE[dataset], "domain": HOSTS[page % 4],
                             "item": f"{dataset}-{page:03}", "cluster": f"c{page}",
                             "score": value + hard + rng.gauss(0, 0.09), "bytes": 4000})  # fmt: skip
    write_scores(place / "scores.parquet", rows)
    write_json(place / "comparison.json", comparison_document())
    return {"items": len(rows)}, {}, ArtifactType.SCORES


def pair(baseline: str, model: str, difference: float, half: float, verdict: str, base: float) -> Row:
    """A paired comparison as evaluation writes it."""
    return {
        "baseline": baseline, "model": model, "difference": difference, "low": difference - half,
        "high": difference + half, "p": 0.0004 if verdict != "no difference seen" else 0.31,
        "p_adjusted": 0.0016 if verdict != "no difference seen" else 0.62, "relative": difference / base,
        "verdict": verdict, "sentence": "", "detectable": half * 1.43,
    }  # fmt: skip


def estimate(value: float, half: float) -> Row:
    """A model's score with its interval."""
    return {"value": value, "low": value - half, "high": value + half, "standard_error": half / 2}


def comparison_document() -> Row:
    """comparison.json of the demo."""
    tasks = []
    for dataset, values in BITS.items():
        base = values["base"]
        sign = "better" if dataset == "japanese" else "worse"
        pairs = [
            pair("base", "adapted", values["adapted"] - base, 0.041, sign, base),
            pair("base", "control", values["control"] - base, 0.038, sign, base),
            pair("adapted", "control", values["control"] - values["adapted"], 0.022,
                 "worse" if dataset == "japanese" else "better", values["adapted"]),
        ]  # fmt: skip
        domains = [
            {"domain": h, "items": 30 - 5 * i, "by_model": {m: v + 0.1 * i for m, v in values.items()}}
            for i, h in enumerate(HOSTS)
        ]
        by_model = {m: estimate(v, 0.09) for m, v in values.items()}
        tasks.append({"task": "bits-per-byte", "dataset": dataset, "language": LANGUAGE[dataset],
                      "metric": "bits per byte", "lower_is_better": True, "items": 74, "clusters": 71,
                      "chance": None, "by_model": by_model, "pairs": pairs,
                      "by_domain": domains})  # fmt: skip
    cloze = {"base": 0.31, "adapted": 0.54, "control": 0.52}
    tasks.append({
        "task": "cloze", "dataset": "japanese", "language": "ja", "metric": "accuracy",
        "lower_is_better": False, "items": 222, "clusters": 71, "chance": 0.25,
        "by_model": {m: estimate(v, 0.06) for m, v in cloze.items()},
        "pairs": [pair("base", "adapted", 0.23, 0.07, "better", 0.31),
                  pair("base", "control", 0.21, 0.07, "better", 0.31),
                  pair("adapted", "control", -0.02, 0.05, "no difference seen", 0.54)],
        "by_domain": [],
    })  # fmt: skip
    generations = [
        {
            "dataset": "japanese",
            "language": language,
            "item": f"page-{n}",
            "prompt": prompt,
            "gold": gold,
            "outputs": OUTPUTS,
        }
        for n, (language, prompt, gold) in enumerate(PROMPTS)
    ]
    return {
        "schema": 1, "confidence": 0.95, "method": "paired bootstrap over clusters, Holm over all pairs",
        "baseline": "base", "models": ["base", "adapted", "control"], "tasks": tasks,
        "generations": generations, "alarms": [],
    }  # fmt: skip


@dataclass
class Page(HTMLParser):
    """Tags with their attributes, the text of the page, and the SVG figures as source."""

    source: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, style sheet included, with runs of white space as one space."""
        return " ".join("".join(self.texts).split())

    @property
    def figures(self) -> list[str]:
        """The source of every SVG element."""
        return re.findall(r"<svg.*?</svg>", self.source, flags=re.DOTALL)


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory; takes the keyword arguments of `write_run`."""
    return lambda **changes: write_run(tmp_path / "demo-ja", **changes)


@pytest.fixture
def parse() -> Callable[[str], Page]:
    """Takes a report apart."""
    return Page
