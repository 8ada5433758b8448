"""Language packs: every pack loads, says what its reference says, and a new one is a folder."""

import codecs

import pytest

from tsugiki.errors import InputError
from tsugiki.languages import load_pack, pack_codes, read_pack

MINIMAL = """
code = "xx"
name = "Test"
native_name = "Test"
[identification]
labels = ["xx"]
minimum_score = 0.5
[script]
sentence_terminators = "."
[prefilter]
html_lang = ["xx"]
"""


def write_pack(root, code, text):
    (root / code).mkdir()
    path = root / code / "pack.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("code", pack_codes())
def test_pack_of_every_code_loads_with_known_codecs_and_rules(code):
    pack = load_pack(code)
    assert pack.code == code
    assert pack.rules
    assert all(codecs.lookup(name) for name in (*pack.decoding.legacy_encodings, *pack.prefilter.charsets))


def test_pack_codes_hold_the_languages_of_the_demo():
    assert {"ja", "en"} <= set(pack_codes())


def test_japanese_pack_has_swallows_character_classes():
    classes = load_pack("ja").script.classes
    assert classes["hiragana"] == ((0x3041, 0x3096),)
    assert classes["katakana"] == ((0x30A1, 0x30FA),)
    assert {chr(first) for first, last in classes["touten"] if first == last} == set("、，")
    assert {chr(first) for first, last in classes["kuten"] if first == last} == set("。．！？")
    singles = {chr(first) for first, last in classes["kanji"] if first == last}
    assert singles == set("々〇〻")


def test_japanese_pack_has_swallows_thresholds():
    bounds = {name: (rule.min, rule.max) for name, rule in load_pack("ja").rules.items()}
    assert bounds == {
        "letters": (400, None),
        "language_letters": (400, None),
        "language_share": (0.5, None),
        "hiragana_share": (0.2, None),
        "katakana_share": (None, 0.5),
        "sentence_length_mean": (20, 90),
        "sentence_length_max": (None, 200),
        "ellipsis_share": (None, 0.2),
        "paragraph_duplicates": (None, 0.3),
        "sentence_duplicates": (None, 0.3),
        "paragraph_duplicate_letters": (None, 0.2),
        "sentence_duplicate_letters": (None, 0.2),
        **{f"top_{n}gram": (None, limit) for n, limit in ((2, 0.20), (3, 0.18), (4, 0.16))},
        **{f"repeated_{n}grams": (None, round(0.20 - n / 100, 2)) for n in range(5, 11)},
    }


def test_load_pack_of_unknown_code_suggests_a_known_one():
    with pytest.raises(InputError, match="no language pack") as caught:
        load_pack("jaa")
    assert '"ja"' in caught.value.hint


def test_load_pack_from_another_folder_finds_a_language_added_at_run_time(tmp_path):
    write_pack(tmp_path, "xx", MINIMAL)
    assert load_pack("xx", extra=(tmp_path,)).name == "Test"
    assert "xx" in pack_codes((tmp_path,))
    assert "xx" not in pack_codes()


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (("minimum_score = 0.5", "minimum_score = 1.5"), "minimum_score"),
        (('labels = ["xx"]', "labels = []"), "labels"),
        (('name = "Test"', 'nam = "Test"'), "nam"),
        (('sentence_terminators = "."', ""), "sentence_terminators"),
        (('code = "xx"', 'code = "yy"'), "yy"),
        (('code = "xx"', "code = "), "TOML"),
        (("[prefilter]", '[script.classes]\na = ["41-5A"]\nb = ["50"]\n[prefilter]'), "overlap at U\\+0050"),
        (("[prefilter]", '[script.classes]\na = ["5A-41"]\n[prefilter]'), "not a range"),
        (("[prefilter]", '[script.classes]\na = ["zz"]\n[prefilter]'), "hexadecimal"),
        (("[prefilter]", '[rules]\na = {feature = "letters"}\n[prefilter]'), "min"),
        (("[prefilter]", '[rules]\na = {feature = "letters", min = "many"}\n[prefilter]'), "rules.a.min"),
    ],
)
def test_read_pack_of_a_faulty_file_names_the_fault(tmp_path, change, seen):
    path = write_pack(tmp_path, "xx", MINIMAL.replace(*change, 1))
    with pytest.raises(InputError, match=seen):
        read_pack(path)


def test_read_pack_that_is_not_utf8_is_an_input_error(tmp_path):
    path = write_pack(tmp_path, "xx", "")
    path.write_bytes(b'code = "\xff"')
    with pytest.raises(InputError, match="TOML"):
        read_pack(path)
