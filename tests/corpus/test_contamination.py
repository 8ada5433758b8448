"""Decontamination: benchmark items are found whatever their spacing, and nothing else is."""

import gzip
import json
import pickle
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tsugiki.corpus import contamination as module
from tsugiki.corpus.contamination import Contamination, simplify
from tsugiki.corpus.contamination_items import Item, read_items
from tsugiki.errors import InputError
from tsugiki.languages import load_pack

JA = load_pack("ja")
LETTERS = "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほ日本語文書計算機通信設定"
ROWS = [
    {"id": "q1", "question": "日本で二番目に高い山の名前は何といい、どの県にありますか。", "answer": "北岳"},
    {"question": "次のうち、電気を最もよく通す金属はどれかを一つ選びなさい。", "choices": ["銀", "鉄"]},
]


def words(seed, size):
    return "".join(random.Random(seed).choices(LETTERS, k=size))


def index(*texts, ngram=20, **details):
    return Contamination.from_items(
        [Item(f"i{i}", (text,)) for i, text in enumerate(texts)], ngram, **details
    )


def write(path, rows):
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_document_that_holds_an_item_is_hit_and_another_is_not():
    found = index(words(1, 60), words(2, 12), words(3, 9))
    document = words(4, 500) + words(1, 60) + words(5, 500) + words(2, 12)
    assert found.hits(document).items == ("i0", "i1")
    assert (found.hits(document).share, found.hits(document).ngrams) == (1.0, 41)
    assert found.hits(words(6, 2000) + words(3, 9)) == module.Hits(0, 0.0, ())  # nine letters are too few
    assert found.hits("").items == ()


def test_width_case_spaces_punctuation_and_lines_hide_nothing():
    text = "Which ガイド: カタカナ５文字の、ＡＢＣ abc を選びなさい。"
    hidden = "ｗｈｉｃｈ\n「ｶﾞｲﾄﾞ」 ｶﾀｶﾅ 5 文 字 の\u3000**ABC** `ABC` を\r\n選びな・さい!"
    assert simplify(text).tolist() == simplify(hidden).tolist()
    assert index(text).hits(f"前の文です。{hidden}後の文です。").items == ("i0",)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 120), st.data())
def test_verbatim_items_are_always_hit(seed, size, data):
    found = index(*(words(seed + i, size + i) for i in range(5)))
    item = words(seed + 2, size + 2)
    breaks = st.sampled_from(["", "", "", " ", "\n", "、", "\u200b", "。\n\n"])
    spaced = "".join(letter + data.draw(breaks) for letter in item[:40]) + item[40:]
    assert "i2" in found.hits(words(seed + 9, 300) + spaced + words(seed + 8, 300)).items


@settings(max_examples=200, deadline=None)
@given(st.text(st.one_of(st.characters(), st.sampled_from("ｶﾞ゙ΑΣς①İﬁ各\u0301\ufe0f\U000e0100\ud800"))))
def test_simplify_by_table_equals_its_definition(text):
    plain = module._simplify_plainly(text)
    assert simplify(text).tolist() == [ord(letter) for letter in plain]


def test_a_changed_letter_leaves_a_hit_and_half_an_item_does_not():
    item = words(1, 60)
    found = index(item)
    assert found.hits(item[:30] + "Ｘ" + item[31:]).share > 0.95
    assert found.hits(item[:30]).items == ()
    assert found.hits(item[:30]).share == 0.5
    assert found.hits(item[:48]).items == ("i0",)  # four fifths
    assert found.hits(item[:47]).items == ()
    assert index(item, share=0.0).hits(item[:20]).items == ("i0",)  # any n-gram
    assert index(item, share=0.0).hits(item[:19]).items == ()


def test_wording_of_the_benchmark_is_no_evidence():
    wording = "次の文章を読んで、最も適切な答えを一つだけ選びなさい。なお、答えは一つとは限りません。"
    texts = [wording + words(i, 40) for i in range(30)]
    found = index(*texts)
    assert found.hits(words(99, 400) + wording + words(98, 400)).items == ()
    assert found.hits(words(99, 400) + texts[7] + words(98, 400)).items == ("i7",)


def test_field_that_all_items_share_counts_only_where_there_is_no_other():
    items = [
        Item(f"i{i}", ("同じ指示がすべての問題に付いていますので注意してください", words(i, 50)))
        for i in range(20)
    ]
    found = Contamination.from_items(items, 20)
    assert found.hits(items[0].texts[0]).items == ()
    assert found.hits(items[3].texts[1]).items == ("i3",)
    same = Contamination.from_items([Item(f"i{i}", (words(1, 50),)) for i in range(20)], 20)
    assert len(same.hits(words(1, 50)).items) == 20


def test_items_that_differ_in_common_ngrams_only_are_found_as_a_whole():
    texts = [words(1, 40)[: 40 - i] for i in range(15)]  # each n-gram of the shorter ones is common
    found = index(*texts)
    assert found.hits(words(2, 200) + texts[-1] + words(3, 200)).items == ("i14",)


def test_long_documents_are_searched_in_pieces(monkeypatch):
    found = index(words(1, 60), words(2, 12))
    document = words(3, 90) + words(1, 60) + words(4, 90) + words(2, 12) + words(5, 90)
    whole = found.hits(document)
    monkeypatch.setattr(module, "_CHUNK", 32)
    assert found.hits(document) == whole
    assert whole.items == ("i0", "i1")


def test_hits_equal_a_plain_count(monkeypatch):
    rng = random.Random(3)
    texts = ["".join(rng.choices("あいう", k=rng.randint(4, 14))) for _ in range(40)]
    found = index(*texts, ngram=4, share=0.7)
    monkeypatch.setattr(module, "COMMON", 10)
    for seed in range(40):
        document = "".join(random.Random(seed).choices("あいう", k=60))
        grams = {document[i : i + 4] for i in range(57)}
        owners = {gram: {text for text in texts if gram in text} for gram in grams | _grams(texts)}
        rare = {gram for gram, parts in owners.items() if 0 < len(parts) <= 10}
        expected = set()
        for number, text in enumerate(texts):
            able = _cover(text, rare)
            share = len(_cover(text, rare & grams)) / len(able) if able else float(text in document)
            if share >= 0.7:
                expected.add(f"i{number}")
        assert set(found.hits(document).items) == expected


def _grams(texts):
    return {text[i : i + 4] for text in texts for i in range(len(text) - 3)}


def _cover(text, grams):
    return {i + j for i in range(len(text) - 3) if text[i : i + 4] in grams for j in range(4)}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress)],
)
def test_items_of_each_compression_have_names_of_file_and_id_or_line(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack("\n".join(json.dumps(row) for row in ROWS).encode()))
    first, second = read_items(tmp_path / name)
    assert (first.id, second.id) == (f"{name}#q1", f"{name}:2")
    assert first.texts == (ROWS[0]["question"], "北岳")
    assert second.texts == (ROWS[1]["question"], "銀", "鉄")


def test_items_of_parquet_and_named_fields(tmp_path):
    pq.write_table(pa.table({"id": [7, 8], "question": ["問", "題"], "n": [1, 2]}), tmp_path / "a.parquet")
    assert read_items(tmp_path / "a.parquet") == [Item("a.parquet#7", ("問",)), Item("a.parquet#8", ("題",))]
    assert read_items(tmp_path / "a.parquet", ["n"])[0].texts == ()
    with pytest.raises(InputError, match='no column "answer"'):
        read_items(tmp_path / "a.parquet", ["answer"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no benchmark item"),
        (b"\n \n", "holds no benchmark item"),
        (b'{"question": "a"}\n{"question": "\xff"}', "line 2: not UTF-8"),
        (b'{"question": "a"}\n\n{"question"', "line 3: not JSON"),
        (b"[" * 100_000, "line 1: not JSON"),
        (b'["a"]', "line 1: not a JSON object"),
        (b'{"question": "a"}\n{"other": "a"}', 'line 2: the item has no field "question"'),
    ],
)
def test_broken_item_file_is_refused_with_its_line(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_items(tmp_path / "a.jsonl", ["question"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_missing_or_truncated_item_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="can't be read"):
        read_items(tmp_path / name)
    if name != "a.jsonl":
        packed = {
            "gz": gzip.compress(b'{"a": "b"}' * 99),
            "zst": zstandard.ZstdCompressor().compress(b'{"a": "b"}' * 99),
        }
        (tmp_path / name).write_bytes(packed.get(name.rsplit(".", 1)[1], b"PAR1 and no more")[:-6])
        with pytest.raises(InputError, match="can't be read"):
            read_items(tmp_path / name)


def test_index_of_files_does_not_depend_on_their_order_and_survives_a_pickle(tmp_path):
    paths = [write(tmp_path / "a.jsonl", ROWS[:1]), write(tmp_path / "b.jsonl", ROWS[1:])]
    found = Contamination.from_files(paths, JA)
    assert found.ngram == 20
    assert Contamination.from_files(paths[::-1], JA).digest == found.digest
    assert Contamination.from_files(paths, JA, ngram=12).digest != found.digest
    assert Contamination.from_files(paths, JA, share=0.5).digest != found.digest
    assert Contamination.from_files(paths[:1], JA).digest != found.digest
    copy = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert copy.hits(f"問題です。{ROWS[1]['question']}答えは銀です。").items == ("b.jsonl:1",)
    assert Contamination.from_files(paths[:1], load_pack("en"), ngram=None).ngram == 50


def test_file_with_short_texts_only_is_refused(tmp_path):
    with pytest.raises(InputError, match="10 letters or more"):
        Contamination.from_files([write(tmp_path / "a.jsonl", [{"answer": "はい"}])], JA)
