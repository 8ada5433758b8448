"""Finding documents, saying why, differences, and text that must not act on a terminal."""

import json
import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsugiki.artifacts.documents import documents_schema, write_documents
from tsugiki.artifacts.identity import identity_of
from tsugiki.artifacts.manifest import Manifest, content_files, write_manifest
from tsugiki.commands.corpus_show import show as command
from tsugiki.commands.terminal import block, columns, display_width, json_text, one_line
from tsugiki.corpus.inspection.artifact import open_corpus
from tsugiki.corpus.inspection.compare import readable_difference
from tsugiki.corpus.inspection.cuts import Cut, split_reason
from tsugiki.corpus.inspection.rows import Selection, find
from tsugiki.corpus.inspection.show import show
from tsugiki.errors import InputError

HOSTILE = "\x1b[31mred\x07 \u202eevil\u2066 \x9b2J \r over \u200b \x00"
FEATURES = {"letters": pa.int64(), "hiragana_share": pa.float64()}


def document(name, host, *, reasons=(), text="本文です。", letters=500, share=0.4, **more):
    row = {"id": name, "url": f"http://{host}/{name}", "host": host, "text": text}
    row |= {"source": {"file": "a.warc.gz", "offset": 17}, "rejected_by": list(reasons)}
    row |= {"letters": letters, "hiragana_share": share, "cluster": name, "cluster_size": 1}
    return {**row, "date": "2026-01-01", "title": "題", **more}


KEPT = [
    document("aa01", "www.example.jp", text="一行目。\n二行目。\n三行目。", cluster_size=2, survivor=True),
    document("ab02", "example.jp", letters=410),
    document("ac03", "notexample.jp", title=HOSTILE, url=f"http://x/{HOSTILE}", text=HOSTILE),
]
REJECTED = [
    document("ba01", "m.example.jp", reasons=["near_duplicate"], cluster="aa01", cluster_size=2,
             survivor=False, text="一行目。\n二行目！\n三行目。"),
    document("bb02", "example.jp", reasons=["letters<400", "hiragana_share<0.2"], letters=100, share=0.1),
    document("bc03", "example.org", reasons=["language"], letters=None, share=None),
    document("bd04", "example.org", reasons=["cleaned:letters<400"]),
]  # fmt: skip


@pytest.fixture
def corpus(tmp_path):
    schema = documents_schema(FEATURES)
    for part, rows in (("documents", KEPT), ("rejected", REJECTED)):
        table = pa.Table.from_pylist(rows, schema=schema)
        write_documents(tmp_path / part / "part-00000.parquet", table)
    payload = {"kind": "corpus"}
    write_manifest(tmp_path, Manifest(
        type="documents", kind="corpus", code_version=1, identity=identity_of(payload), payload=payload,
        config={"language": "ja"}, files=content_files(tmp_path), counts={}, facts={}, provenance={},
    ))  # fmt: skip
    opened = open_corpus(tmp_path)
    cuts = tuple(cut for cut in opened.cuts if cut.feature in FEATURES)
    return type(opened)(**{**vars(opened), "cuts": cuts})


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(), ["aa01", "ab02", "ac03", "ba01", "bb02", "bc03", "bd04"]),
        (Selection(part="rejected"), ["ba01", "bb02", "bc03", "bd04"]),
        (Selection(part="documents"), ["aa01", "ab02", "ac03"]),
        (Selection(id="ba"), ["ba01"]),
        (Selection(host="Example.JP"), ["aa01", "ab02", "ba01", "bb02"]),
        (Selection(url="EXAMPLE.ORG"), ["bc03", "bd04"]),
        (Selection(url="ex.*ple"), []),
        (Selection(reason="letters<400"), ["bb02"]),
        (Selection(reason="hiragana_share"), ["bb02"]),
        (Selection(reason="cleaned:"), ["bd04"]),
        (Selection(contains="二行目"), ["aa01", "ba01"]),
        (Selection(contains="二行目", part="documents"), ["aa01"]),
        (Selection(cluster="aa01"), ["aa01", "ba01"]),
    ],
)
def test_show_finds_what_is_asked_for(corpus, selection, names):
    answer = show(corpus, selection, limit=20)
    assert [one.row["id"] for one in answer.documents] == names
    assert answer.matching == len(names)


def test_show_reads_every_rule_and_the_nearest_misses(corpus):
    failing, missed = (show(corpus, Selection(id=name)).documents[0] for name in ("bb02", "ab02"))
    assert [(one.rule, one.value, one.threshold) for one in failing.failing] == [
        ("letters", 100, 400.0),
        ("hiragana_share", 0.1, 0.2),
    ]
    assert [one.margin for one in failing.failing] == pytest.approx([0.75, 0.5])
    assert [one.rule for one in missed.near_misses] == ["letters", "hiragana_share"]
    assert missed.near_misses[0].margin == pytest.approx(-0.025)
    assert not missed.failing


def test_show_separates_reasons_that_no_threshold_made(corpus):
    reasons = {one.row["id"]: one.other_reasons for one in show(corpus, Selection(), limit=9).documents}
    assert reasons["bb02"] == []
    assert (reasons["bc03"], reasons["bd04"]) == (["language"], ["cleaned:letters<400"])


def test_show_of_a_near_duplicate_has_survivor_and_members(corpus):
    one = show(corpus, Selection(id="ba01"), cluster=True).documents[0]
    assert one.survivor["id"] == "aa01"
    assert [(member.id, member.survivor) for member in one.members] == [("aa01", True)]
    assert show(corpus, Selection(id="aa01")).documents[0].survivor is None


def test_random_choice_depends_on_the_seed_only(corpus):
    choices = {seed: find(corpus, Selection(), 3, seed).places for seed in range(6)}
    assert choices[0] == find(corpus, Selection(), 3, 0).places
    assert len(set(choices.values())) > 1
    assert all(len(set(places)) == 3 for places in choices.values())
    # the first of a larger choice are those of a smaller one
    assert find(corpus, Selection(), 5, 1).places[:3] == choices[1]


def test_unknown_id_and_reason_are_refused(corpus):
    with pytest.raises(InputError, match='begins with "zz"'):
        show(corpus, Selection(id="zz"))
    with pytest.raises(InputError) as caught:
        show(corpus, Selection(reason="near_duplicates"))
    assert 'did you mean "near_duplicate"' in caught.value.hint
    assert not show(corpus, Selection(reason="language", part="documents")).documents


def test_command_output_can_not_act_on_a_terminal(corpus, capsys):
    for json_wanted in (False, True):
        command(corpus.directory, limit=9, full=True, cluster=True, diff=True, json=json_wanted)
        out = capsys.readouterr().out
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b]", out)
        assert ("‹U+202E›evil" in out) != json_wanted
    data = json.loads(out)
    assert next(row for row in data["documents"] if row["id"] == "ac03")["text"] == HOSTILE
    near = next(row for row in data["documents"] if row["id"] == "ba01")
    assert "~ 二行目[-。-]{+！+}" in near["difference"]


def test_command_says_how_many_match(corpus, capsys):
    command(corpus.directory, rejected=True, limit=1)
    out = capsys.readouterr().out
    assert "4 documents" in out
    assert "1 shown" in out
    command(corpus.directory, reason="near_duplicate", diff=True)
    assert "kept instead: http://www.example.jp/aa01" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"kept": True, "rejected": True}, {"limit": 0}])
def test_command_refuses_contradictions(corpus, wrong):
    with pytest.raises(InputError):
        command(corpus.directory, **wrong)


def test_difference_shows_lines_and_marks_inside_of_them():
    before = "同じ\n" * 5 + "値は10です\n消える行です\n最後"
    after = "同じ\n" * 5 + "値は12です\n最後\n新しい"
    assert readable_difference(before, after) == [
        "  同じ", "  … 3 equal lines …", "  同じ",
        "~ 値は[-10-]{+12+}です", "- 消える行です", "  最後", "+ 新しい",
    ]  # fmt: skip


def test_difference_of_equal_and_of_endless_texts():
    assert readable_difference("a\nb", "a\nb") == ["  (no difference in the lines)"]
    lines = readable_difference("\n".join(map(str, range(3000))), "x")
    assert lines[-1] == "  (compared up to line 2,000)"
    long = readable_difference("あ" * 9000, "あ" * 8999 + "い")
    assert [line[0] for line in long] == ["-", "+"]


@given(st.lists(st.sampled_from("abcあい"), max_size=12), st.lists(st.sampled_from("abcあい"), max_size=12))
def test_difference_holds_both_texts(left, right):
    lines = readable_difference("\n".join(left), "\n".join(right))
    marked = [line for line in lines if line[0] in "-+~"]
    assert bool(marked) == (left != right)


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        ("letters<400", ("letters", "<", "400")),
        ("ng_share>=0.05", ("ng_share", ">=", "0.05")),
        ("top_2gram>1e-05", ("top_2gram", ">", "1e-05")),
        ("cleaned:letters<400", None),
        ("host:ng_share>0.005", None),
        ("url:adult", None),
        ("language", None),
    ],
)
def test_reasons_are_taken_apart(reason, parts):
    assert split_reason(reason) == parts


def test_cut_that_holds_at_the_threshold_itself():
    strict, loose = Cut("ng", "ng_share", ">", 0.05), Cut("ng", "ng_share", ">=", 0.05)
    values = pa.array([0.04, 0.05, None]).to_numpy(zero_copy_only=False)
    assert strict.rejects(values).tolist() == [False, False, False]
    assert loose.rejects(values).tolist() == [False, True, False]


@given(st.text())
def test_json_text_is_safe_and_exact(text):
    shown = json_text({"text": text})
    assert json.loads(shown) == {"text": text}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    shown.encode()


@given(st.text())
def test_block_and_line_leave_nothing_that_acts(text):
    for shown in (block(text), one_line(text)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert all(line.startswith("  | ") for line in block(text).split("\n"))


def test_columns_align_full_width_characters():
    lines = list(columns([("日本", "1"), ("abcdef", "22")], right=(1,)))
    assert lines == ["日本     1", "abcdef  22"]
    assert len({display_width(line) for line in lines}) == 1
    assert list(columns([])) == []
