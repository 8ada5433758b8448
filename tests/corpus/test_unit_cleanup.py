"""After clean-up a document's lengths are checked again: what is too short now is rejected, and says so."""

import json

import pytest

from tsugiki.corpus.config import Config
from tsugiki.corpus.items import Tally
from tsugiki.corpus.resources import Resources
from tsugiki.corpus.statistics import UnitStatistics
from tsugiki.corpus.toolbox import toolbox_of
from tsugiki.corpus.unit import Part, documents

FOOTER = "Copyright © 2024 All rights reserved. サイトマップ お問い合わせ"


@pytest.fixture
def judge(tmp_path):
    """Judges one Japanese text: its row, the signature, the statistics."""

    def judged(text, **options):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps({"text": text}) + "\n")
        config = Config.model_validate({"source": "a", "language": "ja", **options})
        payload = {"config": config.model_dump(mode="json"), "resources": Resources(None, (), None).as_dict()}
        statistics = UnitStatistics()
        ((row, signature),) = documents(Part(path), toolbox_of(json.dumps(payload)), statistics, Tally())
        return row, signature, statistics

    return judged


def test_text_that_a_cut_footer_makes_too_short_is_rejected_with_the_reason_marked(judge, japanese):
    body = japanese(3)
    text = f"{body}\n{FOOTER}"
    row, signature, statistics = judge(text, rule_overrides={"letters": len(body) + 1})
    assert row["rejected_by"] == [f"cleaned:letters<{len(body) + 1}"]
    assert (row["text"], row["letters"], signature) == (text, len(text), None)  # as it was judged at first
    assert statistics.documents["passed rules"] == 0
    assert statistics.alone == {row["rejected_by"][0]: 1}


def test_text_that_is_just_long_enough_without_its_footer_is_kept_without_it(judge, japanese):
    body = japanese(3)
    row, signature, statistics = judge(f"{body}\n{FOOTER}", rule_overrides={"letters": len(body)})
    assert (row["rejected_by"], row["text"]) == ([], body)
    assert signature is not None
    assert (statistics.cleaned["footer_lines"], statistics.cleaned["documents"]) == (1, 1)
    assert statistics.characters["passed rules"] == len(body)


def test_lengths_are_not_asked_again_without_rules_on_them(judge, japanese):
    body = japanese(3)
    row, _, _ = judge(f"{body}\n{FOOTER}", rules="none")
    assert (row["rejected_by"], row["text"]) == ([], body)
