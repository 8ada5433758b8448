"""A language pack decides the result as much as the recipe does, so it is part of the identity."""

from tsugiki.artifacts.contract import Inputs, open_workspace
from tsugiki.corpus import stage
from tsugiki.corpus.engine import Engine
from tsugiki.corpus.stage import Config
from tsugiki.corpus.toolbox import Resources
from tsugiki.languages import load_pack


def test_identity_changes_with_the_facts_of_the_language_pack(monkeypatch):
    def payload(**changes):
        monkeypatch.setattr("tsugiki.languages.load_pack", lambda *_: pack.model_copy(update=changes))
        return Config(source="a.warc", language="ja").identity_payload()

    pack = load_pack("ja")
    rule = pack.rules["letters"].model_copy(update={"min": 399.0})
    assert payload() == payload(typical=pack.typical.model_copy(update={"bytes_per_character": 9.0}))
    assert payload() != payload(rules={**pack.rules, "letters": rule})
    monkeypatch.undo()
    assert Config(source="a.warc", language="xx").identity_payload()["language_pack"] is None


def test_unit_of_another_pack_is_not_taken_over(tmp_path, monkeypatch):
    source = tmp_path / "a.jsonl"
    source.write_text('{"text": "日本語の文です。"}\n')
    out = open_workspace(tmp_path / "out")
    config = Config(source="a.jsonl", language="ja", workers=1)

    def unit() -> str:
        files = stage.input_files(config, Inputs({"a.jsonl": (source,)}))
        (path,) = stage._make_units(config, files, Resources(), Engine(), out)
        return path.name

    first, pack = unit(), load_pack("ja")
    assert unit() == first
    monkeypatch.setattr("tsugiki.languages.load_pack", lambda *_: pack.model_copy(update={"rules": {}}))
    assert unit() != first
    out.metrics.close()
