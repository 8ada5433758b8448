"""Cleaning: punctuation by majority, careful NFKC, and the door that does all of it."""

import tracemalloc
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tsugiki.corpus.cleaning import CleanOptions, clean
from tsugiki.corpus.cleaning.normalise import normalise_width
from tsugiki.corpus.cleaning.numbers import is_card, is_my_number, luhn
from tsugiki.corpus.cleaning.pii import mask_personal_data
from tsugiki.corpus.cleaning.punctuation import restore_punctuation
from tsugiki.languages import load_pack
from tsugiki.languages.schema import NumberPattern, PersonalData

JA = load_pack("ja")
EN = load_pack("en")
ALL = CleanOptions(nfkc=True, optional_kinds=("ip",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("お待ちください．．．", "お待ちください。。。"),  # the cases of kutoten.py's docstring
        ("円周率は３．１４です．", "円周率は３．１４です。"),
        ("Ｈｉ，そうです，はい", "Ｈｉ，そうです、はい"),
        ("そうです，はい、ええ", "そうです，はい、ええ"),  # as many of each: nothing
        ("そうです，ええ，はい、", "そうです、ええ、はい、"),
        ("そうです，ええ，はい、ね。", "そうです、ええ、はい、ね。"),  # each pair by itself
        ("はい（例），ABC，そう", "はい（例）、ABC、そう"),  # behind Latin letters too, once it is decided
        ("ABC，DEF．", "ABC，DEF．"),  # nothing counts behind Latin letters
        ("データー，メーカー，", "データー，メーカー，"),  # nor behind the long vowel mark
        ("，はい，そう", "，はい、そう"),  # a run at the beginning stays
        ("(^．^)です．", "(^．^)です。"),
        ("Ｈｉ，，そうです，", "Ｈｉ，，そうです、"),  # a run is one thing
        ("行末で\n．そうです．", "行末で\n。そうです。"),
        ("", ""),
    ],
)
def test_punctuation_follows_the_majority(text, expected):
    changed, count = restore_punctuation(text, JA)
    assert changed == expected
    assert count == sum(a != b for a, b in zip(text, expected, strict=True))


def test_punctuation_counts_runs_not_characters():
    assert restore_punctuation("そう．．．．はい。ええ。", JA) == ("そう．．．．はい。ええ。", 0)


def test_punctuation_of_a_pack_without_pairs_stays():
    assert restore_punctuation("そうです，はい．", EN) == ("そうです，はい．", 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ＡＢＣ１２３", "ABC123"),
        ("ｶﾞｷﾞｸﾞ ﾊﾟｿｺﾝ", "ガギグ パソコン"),
        ("か\u3099き", "がき"),
        ("ﬁne", "fine"),
        ("10² ① ㌔ ½ ™ … ‥ ～ Ⅳ ㈱ ゛", "10² ① ㌔ ½ ™ … ‥ ～ Ⅳ ㈱ ゛"),
        ("そう？（はい！）：", "そう？（はい！）："),
        ("福\ufa19社", "福\ufa19社"),  # variants of names
        ("全角\u3000空白\u00a0です", "全角 空白 です"),
        ("１\u3000\u3000２\n\u3000３", "1 2\n3"),
        ("各\u1100\u1161", "各가"),
        ("e\u0301a", "éa"),
        ("\u0301a", "\u0301a"),
    ],
)
def test_nfkc_changes_width_and_leaves_meaning(text, expected):
    assert normalise_width(text, JA)[0] == expected


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from("かｶﾞ゙ﾊﾟé́각ᄀ①～　＠１ａ\n \u0300\u0323"))))
def test_nfkc_without_kept_characters_is_unicode_s_and_keeps_lines(text):
    plain = JA.model_copy(update={"cleanup": JA.cleanup.model_copy(update={"nfkc_keep": ()})})
    changed, _ = normalise_width(text, plain)
    lines = zip(text.split("\n"), changed.split("\n"), strict=True)
    for before, after in lines:
        full = unicodedata.normalize("NFKC", before)
        assert after in (full, " ".join(full.split()))
        assert bool(after) == bool(before)


def test_check_digits_are_those_of_the_standards():
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_card("4111111111111111")
    assert not is_card("9111111111111111")
    assert not is_card("4901234567894")  # an article number
    body = "12345678901"
    valid = [digit for digit in range(10) if is_my_number(f"{body}{digit}")]
    total = sum(int(body[10 - i]) * (i + 2 if i < 6 else i - 4) for i in range(11))
    assert valid == [11 - total % 11 if total % 11 > 1 else 0]
    assert not is_my_number("123")
    # given as valid by other implementations: PyPI JPMyNumber, npm mynumber, the gem tsubaki
    assert all(map(is_my_number, ("123456789018", "548836529885", "465281266333")))


def test_mask_of_optional_kinds_needs_a_request():
    assert mask_personal_data("8.8.8.8", EN)[0] == "8.8.8.8"
    assert mask_personal_data("8.8.8.8, 10.0.0.1", EN, ("ip",))[0] == "[IP address], 10.0.0.1"
    assert mask_personal_data("8.8.8.8", load_pack("de"), ("ip",))[0] == "8.8.8.8"


@pytest.mark.parametrize(
    "facts",
    [
        {"tokens": {"phone": "[1]"}},
        {"tokens": {"phone": ""}},
        {"tokens": {"mail": "a@b"}},
        {"tokens": {}, "optional": ["ip"]},
        {"tokens": {}, "numbers": [{"kind": "phone", "pattern": "1"}]},
        {"tokens": {"phone": "x"}, "numbers": [{"kind": "phone", "pattern": "("}]},
        {"tokens": {"phone": "x"}, "numbers": [{"kind": "phone", "pattern": "1", "check": "none"}]},
    ],
)
def test_personal_data_that_does_not_hold_together_is_refused(facts):
    with pytest.raises(ValidationError):
        PersonalData.model_validate(facts)


def test_personal_data_of_another_language_is_data_alone():
    number = NumberPattern(kind="case", pattern=r"\d{4}/\d{4}", before="Az")
    facts = PersonalData(tokens={"case": "[case]"}, numbers=(number,))
    pack = EN.model_copy(update={"personal_data": facts})
    assert mask_personal_data("Az. 1234-5678, a@b.com", pack)[0] == "Az. 1234-5678, a@b.com"
    number = NumberPattern(kind="case", pattern=r"\d{4}-\d{4}", before="Az")
    pack = EN.model_copy(update={"personal_data": PersonalData(tokens={"case": "[case]"}, numbers=(number,))})
    assert mask_personal_data("Az. 1234-5678", pack) == ("Az. [case]", {"case": 1})


BODY = "\n".join(
    f"これは本文の{i}番目の段落であり，長さは普通の文と同じくらいになります．" for i in range(12)
)


def test_clean_does_all_parts_and_counts_them():
    text = (
        f"{BODY}\nＡＢＣの電話は０３−１２３４−５６７８です，メールはa@example.jpです．\nプライバシーポリシー"
    )
    cleaned = clean(text, JA, ALL)
    assert cleaned.text.endswith("\nABCの電話は[電話番号]です、メールは[メールアドレス]です。")
    assert cleaned.changes == {"footer_lines": 1, "mail": 1, "nfkc": 4, "phone": 1, "punctuation": 26}


def test_clean_with_everything_off_changes_nothing():
    off = CleanOptions(punctuation=False, footer="off", nfkc=False, personal_data=False)
    text = f"{BODY}\n電話は03-1234-5678\nプライバシーポリシー"
    assert (clean(text, JA, off).text, clean(text, JA, off).changes) == (text, {})


def test_clean_of_a_pack_without_sections_changes_nothing():
    bare = JA.model_copy(
        update={"cleanup": EN.cleanup, "personal_data": None, "lists": {}},
    )
    text = f"{BODY}\n電話は03-1234-5678\nプライバシーポリシー"
    assert clean(text, bare, CleanOptions()).text == text


def test_clean_keeps_a_page_that_is_all_footer():
    assert clean("お知らせ", JA, CleanOptions(footer="swallow")).text == "お知らせ"


def test_clean_of_chained_numbers_masks_all_of_them():
    text = "電話 " + " ".join(["03-1234-5678"] * 40)
    assert clean(text, JA, CleanOptions()).changes == {"phone": 40}


PIECES = (
    *(
        "は",
        "です",
        "，",
        "．",
        "、",
        "。",
        "３．１４",
        "Ｈｉ，",
        "\n",
        " ",
        "　",
        "ｶﾞ",
        "゙",
        "①",
        "\ud800",
        "\0",
    ),
    *(
        "03-1234-5678",
        "０９０ー１２３４ー５６７８",
        "〒100-0001",
        "a@b.jp",
        "＠",
        "4111 1111 1111 1111",
        "(at)",
    ),
    *(
        "電話",
        "TEL",
        "マイナンバー",
        "123456789018",
        "-",
        "+81",
        "8.8.8.8",
        "1",
        "23",
        ".",
        "（",
        "）",
        "東京都",
    ),
    *("サイトマップ", "お知らせ", "© 2010", "本文の長い段落です。" * 30),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=40), st.booleans())
def test_clean_is_idempotent_and_never_empties(pieces, nfkc):
    text = "".join(pieces)
    for pack in (JA, EN):
        options = CleanOptions(nfkc=nfkc, optional_kinds=("ip",))
        once = clean(text, pack, options)
        assert clean(once.text, pack, options).text == once.text
        assert bool(once.text.strip()) == bool(text.strip())
        assert (once.text == text) or once.changes


@pytest.mark.parametrize(
    "piece", ["1", "1 ", "@", "a@", "a@b.", "1-", "03-1234-5678 ", "(at)", "．", "\n", "か\u3099"]
)
def test_clean_of_a_long_hostile_text_takes_linear_time(piece):
    text = piece * (100_000 // len(piece))
    assert clean(text, JA, ALL).text


def test_mask_of_one_run_of_forty_thousand_numbers_needs_little_memory():
    numbers = 40_000
    text = "03-1234-5678 " * numbers  # one run of digits
    tracemalloc.start()
    masked, changes = mask_personal_data(text, JA)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert changes == {"phone": numbers}
    assert masked == "[電話番号] " * numbers
    assert most < 40 * len(text)
