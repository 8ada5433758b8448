"""A language is a folder: Esperanto, which the package does not have, added at run time."""

import pytest

from tsugiki.corpus.features import compute_features, feature_types
from tsugiki.corpus.identify import identify, is_language
from tsugiki.corpus.rules import failing, rules_of
from tsugiki.errors import InputError
from tsugiki.languages import load_pack, pack_codes

ESPERANTO = """
code = "eo"
name = "Esperanto"
native_name = "Esperanto"
stop_words = ["la", "kaj", "de", "en", "estas", "al", "ne", "por"]
[identification]
labels = ["eo"]
minimum_score = 0.65
[script]
sentence_terminators = ".!?"
ellipses = ["…", "..."]
[script.classes]
latin = ["0041-005A", "0061-007A"]
hats = ["0108-0109", "011C-011D", "0124-0125", "0134-0135", "015C-015D", "016C-016D"]
[decoding]
legacy_encodings = ["iso8859_3"]
[prefilter]
html_lang = ["eo"]
evidence = ["0108-0109", "011C-011D", "0124-0125", "0134-0135", "015C-015D", "016C-016D"]
[lists.ng]
file = "ng.txt"
licence = "CC0-1.0"
source = "written for this test"
[rules]
words = { feature = "words", min = 40 }
stop_words = { feature = "stop_words", min = 2 }
hats = { feature = "hats_share", min = 0.005 }
ng_share = { feature = "ng_share", below = 0.05 }
"""
PAGE = """La biblioteko estas malfermita por ĉiuj loĝantoj de la urbo, kaj la karto estas senpaga.
Kiu venas la unuan fojon, tiu demandu ĉe la giĉeto, kie oni volonte montros ĉiujn ĉambrojn.
Oni povas prunti dek librojn samtempe kaj reteni ilin dum du semajnoj, se neniu alia atendas.
Kiam pluvas, bonvolu kunporti sakon, ĉar malseka papero malfacile sekiĝas.
La malnovaj libroj estas vendataj unufoje jare, kaj per la mono oni aĉetas novajn bildlibrojn."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "eo").mkdir()
    (tmp_path / "eo" / "pack.toml").write_text(ESPERANTO, encoding="utf-8")
    (tmp_path / "eo" / "ng.txt").write_text("# words\nfikaĵo\n", encoding="utf-8")
    return tmp_path


def test_added_language_is_a_folder_and_nothing_else(folder):
    assert "eo" not in pack_codes()
    assert "eo" in pack_codes([folder])
    with pytest.raises(InputError, match='no language pack "eo"'):
        load_pack("eo")
    pack = load_pack("eo", extra=[folder])
    assert pack.lists["ng"].entries == ("fikaĵo",)
    assert {"hats_share", "ng_share", "words"} <= set(feature_types(pack))


def test_added_language_runs_through_identification_features_and_rules(folder):
    pack = load_pack("eo", extra=[folder])
    assert is_language(identify(PAGE, pack), pack)
    features = compute_features(PAGE, pack)
    assert features["stop_words"] >= 5
    assert features["hats_share"] > 0.02
    assert failing(features, rules_of(pack)) == []
    dirty = compute_features("Fikaĵo! " * 40, pack)
    assert dirty["ng_expressions"] == 40
    assert set(failing(dirty, rules_of(pack))) == {"stop_words<2", "ng_share>=0.05"}


def test_added_language_may_replace_one_of_the_package(folder):
    own = folder / "ja"
    own.mkdir()
    text = ESPERANTO.replace('code = "eo"', 'code = "ja"').split("[lists.ng]")[0]
    (own / "pack.toml").write_text(text, encoding="utf-8")
    assert load_pack("ja", extra=[folder]).name == "Esperanto"
    assert load_pack("ja").name == "Japanese"
