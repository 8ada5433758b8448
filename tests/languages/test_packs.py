"""Language packs: every pack loads, says what its reference says, and a new one is a folder."""

import codecs
from pathlib import Path

import pytest

from tsugiki import languages
from tsugiki.errors import InputError
from tsugiki.languages import load_pack, pack_codes, read_pack

PACKAGE = Path(languages.__file__).parent
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
    rules = dict(load_pack("ja").rules)
    assert rules.pop("ng_share").below == 0.05
    bounds = {name: (rule.min, rule.max) for name, rule in rules.items()}
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
        (("[prefilter]", '[rules]\na = {feature = "letters", min = "400"}\n[prefilter]'), "rules.a.min"),
        (("[prefilter]", '[rules]\na = {feature = "letters", min = true}\n[prefilter]'), "rules.a.min"),
        (("[prefilter]", '[rules]\na = {feature = "letters", max = nan}\n[prefilter]'), "finite"),
        (("[prefilter]", '[rules]\na = {feature = "letters", below = inf}\n[prefilter]'), "finite"),
        (("[prefilter]", '[rules]\na = {feature = "letters", min = 2, max = 1}\n[prefilter]'), "no document"),
        (("[prefilter]", '[rules]\na = {feature = "letters", least = 2}\n[prefilter]'), "least"),
        (("[prefilter]", '[rule_sets.s]\na = {feature = "letters"}\n[prefilter]'), "rule_sets.s.a"),
        (('sentence_terminators = "."', 'sentence_terminators = [".", "!!"]'), "'!!' is not a single"),
        (('sentence_terminators = "."', 'sentence_terminators = ". "'), "white space"),
        (('sentence_terminators = "."', 'sentence_terminators = "."\nellipses = [""]'), "ellipses"),
        (("[prefilter]", '[decoding]\nlegacy_encodings = ["cp9999"]\n[prefilter]'), 'encoding "cp9999"'),
        (("[prefilter]", '[decoding]\nlegacy_encodings = ["rot13"]\n[prefilter]'), 'encoding "rot13"'),
        (('html_lang = ["xx"]', 'html_lang = ["xx"]\ncharsets = ["shift-jiss"]'), "shift-jiss"),
        (("[prefilter]", '[script.classes]\n"a-b" = ["41"]\n[prefilter]'), "script.classes"),
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


def test_read_pack_names_all_faults_at_once(tmp_path):
    text = MINIMAL.replace("minimum_score = 0.5", 'minimum_score = "x"').replace(
        'name = "Test"', "name = 3", 1
    )
    text += '[rules]\na = {feature = "letters", max = nan}\n[decoding]\nlegacy_encodings = ["nope"]\n'
    with pytest.raises(InputError) as caught:
        read_pack(write_pack(tmp_path, "xx", text))
    for fault in ("identification.minimum_score", "name:", "rules.a.max", "decoding.legacy_encodings.0"):
        assert fault in caught.value.message


LIST = '[lists.ng]\nfile = "ng.txt"\nlicence = "CC0-1.0"\nsource = "here"\n'


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"one\ntwo\n\xff\xfe\n", "line 3: the list is not UTF-8"),
        (b"# nothing\n\n", "holds no entry"),
        (None, "can't be read"),
    ],
)
def test_read_pack_with_a_broken_list_says_where(tmp_path, content, seen):
    path = write_pack(tmp_path, "xx", MINIMAL + LIST)
    if content is not None:
        (path.parent / "ng.txt").write_bytes(content)
    with pytest.raises(InputError, match=seen):
        read_pack(path)


@pytest.mark.parametrize("code", pack_codes())
def test_pack_lists_hold_entries_and_say_licence_and_source(code):
    pack = load_pack(code)
    for name, words in pack.lists.items():
        assert name in {"ng", "dating", "footer", "policy", "refusals"}
        assert words.entries
        assert len(set(words.entries)) == len(words.entries)
        assert words.licence in {"CC-BY-4.0", "CC0-1.0", "MIT", "Apache-2.0"}
    if "ng" in pack.lists:
        head = (PACKAGE / code / "ng.txt").read_text(encoding="utf-8").split("\n# Changed")[0]
        assert "CC-BY-4.0" in head
        assert "LDNOOBW" in head


# huggingface/fineweb-2 at d0defb2, configs/: repeated lines, closed lines, words with letters, line breaks,
# lengths of words, and n-grams: the most frequent one of n = 2 to 4, the repeated ones of n = 5 to 10.
PUBLISHED = {
    "de": (0.263, 0, 0.774, 0.152, (0, 15), (0.169, 0.153, 0.137, 0.141, 0.134, 0.126, 0.117, 0.108, 0.098)),
    "fi": (
        0.293,
        0.114,
        0.755,
        0.161,
        (3, 14),
        (0.253, 0.202, 0.179, 0.153, 0.143, 0.133, 0.122, 0.112, 0.101),
    ),
    "hi": (
        0.206,
        0.091,
        0.837,
        0.316,
        (2, 21),
        (0.208, 0.198, 0.161, 0.135, 0.125, 0.116, 0.108, 0.099, 0.09),
    ),
    "ja": (0.328, 0.096, 0.759, 0.13, (1, 6), (0.239, 0.196, 0.172, 0.243, 0.225, 0.207, 0.19, 0.175, 0.159)),
    "ko": (
        0.374,
        0.062,
        0.791,
        0.196,
        (1, 6),
        (0.282, 0.228, 0.185, 0.201, 0.184, 0.168, 0.154, 0.14, 0.127),
    ),
    "vi": (
        0.293,
        0.333,
        0.803,
        0.103,
        (3, 11),
        (0.223, 0.197, 0.171, 0.178, 0.163, 0.15, 0.136, 0.124, 0.111),
    ),
    "zh": (
        0.287,
        0.106,
        0.735,
        0.178,
        (1, 5),
        (0.256, 0.201, 0.171, 0.198, 0.182, 0.167, 0.154, 0.14, 0.127),
    ),
}
NO_WORDS = {
    "symbol_share",
    "words",
    "stop_words",
    "alphabetic_word_share",
    "line_breaks_per_word",
    "word_length_mean",
}
NO_WORDS |= {f"top_word_{n}gram" for n in range(2, 5)} | {f"repeated_word_{n}grams" for n in range(5, 11)}


@pytest.mark.parametrize("code", PUBLISHED)
def test_pack_has_the_thresholds_of_fineweb2(code):
    pack = load_pack(code)
    lines, closed, letters, breaks, (shortest, longest), grams = PUBLISHED[code]
    names = [f"top_word_{n}gram" for n in range(2, 5)] + [f"repeated_word_{n}grams" for n in range(5, 11)]
    expected = {
        "line_duplicates": (None, lines),
        "terminated_line_share": (closed, None),
        "alphabetic_word_share": (letters, None),
        "line_breaks_per_word": (None, breaks),
        "word_length_mean": (2 if code == "vi" else shortest, longest),  # vi: syllables here, words there
        **{name: (None, value) for name, value in zip(names, grams, strict=True)},
        # fineweb-2-pipeline.py and the defaults of datatrove's Gopher filter
        "repeated_line_letters": (None, 0.1),
        "words": (50, 100_000),
        "symbol_share": (None, 0.1),
        "bullet_line_share": (None, 0.9),
        "ellipsis_line_share": (None, 0.3),
        "stop_words": (2, None),
    }
    rules = pack.rule_sets["fineweb2"] if pack.script.spaceless else pack.rules
    if pack.script.spaceless:
        assert set(rules) == set(expected) - NO_WORDS
    elif code == "ko":
        del expected["stop_words"]  # suffixes, which never stand alone
    found = {name: (rule.min, rule.max) for name, rule in rules.items()}
    assert {name: found[name] for name in expected if name in found} == {
        name: bounds for name, bounds in expected.items() if name in found
    }
    assert pack.script.spaceless or set(expected) <= set(found)


@pytest.mark.parametrize("code", [code for code in pack_codes() if not load_pack(code).script.spaceless])
def test_packs_of_languages_with_spaces_have_the_rules_of_gopher_and_c4_as_sets(code):
    pack = load_pack(code)
    gopher, c4 = pack.rule_sets["gopher"], pack.rule_sets["c4"]
    # Gopher's table A1, but for paragraphs
    assert (gopher["line_duplicates"].max, gopher["line_duplicate_letters"].max) == (0.30, 0.20)
    assert [gopher[f"top_word_{n}gram"].max for n in range(2, 5)] == [0.20, 0.18, 0.16]
    repeated = [gopher[f"repeated_word_{n}grams"].max for n in range(5, 11)]
    assert repeated == [0.15, 0.14, 0.13, 0.12, 0.11, 0.10]
    assert (gopher["words"].min, gopher["words"].max, gopher["alphabetic_word_share"].min) == (
        50,
        100_000,
        0.8,
    )
    assert (c4["c4_sentences"].min, c4["placeholder_texts"].max, c4["curly_brackets"].max) == (5, 0, 0)
    assert ("ng_expressions" in c4) == ("ng" in pack.lists)
