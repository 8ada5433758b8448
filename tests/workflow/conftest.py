"""A small project on disk: Japanese pages, a recipe with a corpus and two nano models, and ways to run it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tsugiki.workflow.display import Silent
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.planning import make_plan
from tsugiki.workflow.recipe import load_recipe
from tsugiki.workflow.running import RunOptions, run_recipe

PLACES = ["東京", "京都", "大阪", "札幌", "仙台", "名古屋", "福岡", "那覇", "金沢", "長崎"]
THINGS = ["図書館", "研究所", "市役所", "植物園", "博物館", "駅前の店", "古い寺", "新しい橋", "小学校", "港"]
ACTS = [
    "見学しました",
    "調べています",
    "紹介されました",
    "建て直しました",
    "話題になりました",
    "写真に撮りました",
]
WHENS = ["昨日", "先週", "去年の秋", "三年前", "朝早く", "夏休みに", "雨の日に", "会議のあとで"]


def sentences(seed: int, count: int) -> str:
    draw = random.Random(seed)
    return "".join(
        f"{draw.choice(WHENS)}、{draw.choice(PLACES)}の{draw.choice(THINGS)}を{draw.choice(PLACES)}から来た"
        f"{draw.randint(2, 999)}人の学生と一緒に{draw.choice(ACTS)}。"
        for _ in range(count)
    )


RECIPE = """
recipe: small
language: ja
stages:
  pages: {kind: corpus, source: pages.jsonl, language: ja, rules: none, heldout: 0.2}
  base:
    kind: train
    model: {preset: llama-nano}
    tokenizer: {train: pages, size: 320}
    data: {pages: 1.0}
    tokens: 12k
    sequence_length: 64
    batch_tokens: 512
    learning_rate: 3e-3
    max_epochs: 50
    threads: 1
    checkpoint_every_steps: 5
  more:
    kind: train
    model: base
    data: {pages: 1.0}
    tokens: 4k
    sequence_length: 64
    batch_tokens: 512
    learning_rate: 1e-3
    max_epochs: 50
    threads: 1
"""


class Project:
    """A directory with pages.jsonl and r.yaml, and the engine over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = root / "r.yaml"
        self.directory = root / "runs" / "small"
        rows = [
            {"id": str(i), "url": f"https://site{i % 3}.example/{i}", "text": sentences(i, 12)}
            for i in range(60)
        ]
        (root / "pages.jsonl").write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8"
        )
        self.recipe.write_text(RECIPE, encoding="utf-8")

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text(encoding="utf-8")
        assert old in text
        self.recipe.write_text(text.replace(old, new), encoding="utf-8")

    def graph(self):
        return build_graph(load_recipe(self.recipe))

    def plan(self):
        return make_plan(self.graph(), self.directory)

    def run(self, **options):
        return run_recipe(self.graph(), self.directory, RunOptions(**options), Silent())

    def states(self) -> dict[str, str]:
        return {stage.name: stage.standing.state.value for stage in self.plan().stages}

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every content file of every finished stage, as the manifests say."""
        return {
            f"{stage.name}/{name}": entry.sha256
            for stage in self.plan().stages
            if stage.standing.manifest
            for name, entry in stage.standing.manifest.files.items()
        }


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """The project after an undisturbed run; tests must not change it (copy it instead)."""
    done = Project(tmp_path_factory.mktemp("finished"))
    done.run()
    return done
