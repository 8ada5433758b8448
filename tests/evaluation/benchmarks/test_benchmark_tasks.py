"""The nineteen tasks say what Swallow ran, to the letter; files with faults are refused with their line."""

# ruff: noqa: E501 (instructions are copied as they are)
from __future__ import annotations

import importlib.util
import random

import pytest

from tsugiki.errors import DependencyError, InputError
from tsugiki.evaluation.benchmarks.manifest import commit_of, manifest
from tsugiki.evaluation.benchmarks.names import TASKS, task_names
from tsugiki.evaluation.benchmarks.prompts import cut_sentences, prompt_of, render
from tsugiki.evaluation.benchmarks.questions import questions_of, read_material
from tsugiki.evaluation.benchmarks.reading import load_task, read_task, settings_of, split_name
from tsugiki.evaluation.benchmarks.schema import Shots
from tsugiki.evaluation.benchmarks.scoring import METRICS, metric_of, require_scoring
from tsugiki.evaluation.benchmarks.shots import jmmlu_parts, processed_train, shots_for
from tsugiki.evaluation.benchmarks.store import sample_store
from tsugiki.evaluation.metrics.corpus import CORPUS_METRICS

INTRODUCTION = (
    "以下は、タスクを説明する指示と、文脈のある入力の組み合わせです。要求を適切に満たす応答を書きなさい。"
)
# Instructions of llm-jp-eval v1.3.0 (evaluation reference, 2.2), copied from there once more.
INSTRUCTIONS = {
    "jcommonsenseqa": "質問と回答の選択肢を入力として受け取り、選択肢から回答を選択してください。なお、回答は選択肢の番号（例：0）でするものとします。 回答となる数値をint型で返し、他には何も含めないことを厳守してください。",
    "jemhopqa": "質問を入力とし、回答を出力してください。回答の他には何も含めないことを厳守してください。回答が'はい'と'いいえ'で答えることができる場合、'YES'と'NO'で答えてください。",
    "niilc": "質問に対する答えを出力してください。回答の他には何も含めないことを厳守してください。答えが複数の場合、コンマ（,）で繋げてください。",
    "jsquad": "質問に対する回答を文章から一言で抽出してください。回答は名詞で答えてください。 それ以外には何も含めないことを厳守してください。",
    "jmmlu": "与えられた質問と選択肢から、最も適切な回答を選択してください。なお、回答には選択肢のアルファベット（例：A）のみを含め、他には何も含めないことを厳守してください。",
}
SHOTS = {
    **dict.fromkeys(("jcommonsenseqa", "jemhopqa", "niilc", "jsquad", "mgsm-ja", "wmt20-en-ja"), 4),
    **dict.fromkeys(("wmt20-ja-en", "triviaqa", "gsm8k", "openbookqa", "hellaswag", "xwino-en"), 4),
    "squad2": 4,
    "jmmlu": 5,
    "mmlu": 5,
    "xlsum-ja": 1,
    "bbh": 3,
    "humaneval": 0,
    "jhumaneval": 0,
}
ITEMS = {
    "jcommonsenseqa": 1119,
    "jemhopqa": 120,
    "niilc": 198,
    "jsquad": 4442,
    "jmmlu": 3541,
    "mgsm-ja": 250,
    "wmt20-en-ja": 1000,
    "wmt20-ja-en": 993,
    "jhumaneval": 164,
    "humaneval": 164,
    "openbookqa": 500,
    "triviaqa": 17944,
    "hellaswag": 10042,
    "squad2": 11873,
    "xwino-en": 2325,
    "mmlu": 14042,
    "gsm8k": 1319,
    "bbh": 6511,
    "xlsum-ja": None,
}


NINETEEN = [name for name in task_names() if load_task(name).group == "nineteen"]


def published(name):
    return settings_of(load_task(name), "published")


def questions(name, variant="published"):
    task = load_task(name)
    settings = settings_of(task, variant)
    material = read_material(task, settings, sample_store())
    return questions_of(task, settings, material, name=name, dataset="sample", most=None, seed=0)


def test_tasks_are_the_nineteen_of_the_paper():
    assert {name: load_task(name).settings.shots.count for name in NINETEEN} == SHOTS
    assert {name: load_task(name).items for name in NINETEEN} == ITEMS
    assert len(NINETEEN) == 19
    assert sum(load_task(name).language == "ja" or name == "wmt20-ja-en" for name in NINETEEN) == 10


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_prompt_of_llm_jp_eval_is_verbatim(name):
    first = questions(name)[0]
    head = f"{INTRODUCTION}\n\n### 指示:\n{INSTRUCTIONS[name]}\n\n### 入力:\n"
    assert first.prompt.startswith(head)
    assert first.prompt.endswith("\n\n### 応答:\n")
    assert first.prompt.count("\n\n### 入力:\n") == SHOTS[name] + 1


def test_prompt_of_jcommonsenseqa_is_the_whole_template():
    settings = published("jcommonsenseqa")
    record = {"id": "0", "question": "問", "choices": list("あいうえお"), "label": 3}
    assert prompt_of(settings, record, [record]).endswith(
        "\n\n### 入力:\n質問：問\n選択肢：0.あ,1.い,2.う,3.え,4.お\n\n### 応答:\n3"
        "\n\n### 入力:\n質問：問\n選択肢：0.あ,1.い,2.う,3.え,4.お\n\n### 応答:\n"
    )


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        (
            "mgsm-ja",
            "\n\n問題：駅に乗客が1,200人いました。450人が降りると何人残りますか？\nステップごとの答え：",
        ),
        ("wmt20-en-ja", "\n\nEnglish phrase: A new bridge was built.\nJapanese phrase:"),
        ("wmt20-ja-en", "\n\nJapanese phrase: 新しい橋が建てられた。\nEnglish phrase:"),
        ("gsm8k", "\n\nQuestion: Tom reads 12 pages a day. How many in 5 days?\nAnswer:"),
        ("triviaqa", "\n\nQuestion: Which instrument has 88 keys??\nAnswer:"),
        ("hellaswag", "\n\nSkiing: A skier stands on a slope. She"),
        ("openbookqa", "\n\nThe heart of an animal pumps"),
        ("humaneval", '    """ Count the vowels a, e, i, o and u.\n    """\n'),
        ("bbh", "alphabetically: List: pear apple quince\nA: Let's think step by step.\n"),
        ("mmlu", "\n\nWhat is half of 18?\nA. 8\nB. 9\nC. 10\nD. 12\nAnswer:"),
        ("squad2", "and children lit a fire.\n\nQuestion: What put the fire out?\n\nAnswer:"),
    ],
)
def test_prompt_ends_as_the_harness_wrote_it(name, ending):
    assert questions(name)[-1].prompt.endswith(ending)


def test_prompt_of_xlsum_begins_with_its_description_and_is_cut_by_sentences():
    items = questions("xlsum-ja", "corrected")
    assert items[0].prompt.startswith("与えられたニュース記事を要約してください。\n\nニュース記事:")
    question = items[2].prompt.rsplit("ニュース記事:", 1)[1]
    assert question.endswith("新しい劇を披露した。\n要約:")
    assert 2900 < len(question.removesuffix("\n要約:").encode()) <= 3000


def test_prompt_of_mmlu_names_the_subject_and_options_carry_their_space():
    item = questions("mmlu")[-1]
    assert item.prompt.startswith(
        "The following are multiple choice questions (with answers) about elementary mathematics.\n\n"
    )
    assert (item.choices, item.answer) == ((" A", " B", " C", " D"), 1)
    assert "Answer: C\n\n" in item.prompt


def test_prompt_of_xwino_puts_both_candidates_before_one_ending():
    item = questions("xwino-en")[2]
    assert item.contexts[0].endswith('The sign said "open", so Ann told Bea that Ann')
    assert item.contexts[1].endswith('The sign said "open", so Ann told Bea that Bea')
    assert item.choices == (" could enter.",)
    assert item.answer == 1


def test_published_caps_are_tokens_and_corrected_ones_are_bytes():
    caps = {"jcommonsenseqa": 1, "jmmlu": 1, "jemhopqa": 15, "niilc": 180, "jsquad": 25, "bbh": 1024}
    caps |= {"gsm8k": 256}
    caps |= {"mgsm-ja": 256, "wmt20-en-ja": 256, "humaneval": "1024 - prompt", "xlsum-ja": "gold + 10"}
    assert {name: published(name).generation.maximum_tokens for name in caps} == caps
    for name in caps:
        assert settings_of(load_task(name), "corrected").generation.maximum_tokens is None


def test_published_stops_and_sampling_are_those_of_the_harness():
    assert published("bbh").generation.stops == ("</s>", "Q", "\n\n")
    assert settings_of(load_task("bbh"), "corrected").generation.stops == ("</s>", "Q:", "\n\n")
    assert published("triviaqa").generation.stops == ("\n", ".", ",")
    code = published("humaneval").generation
    assert code.stops == ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```", "<file_sep>")
    assert (code.samples, code.temperature, code.top_p, code.top_k) == (10, 0.2, 0.95, 0)


@pytest.mark.parametrize("name", ["wmt21-en-ja", "wmt21-ja-en", "wmt22-en-ja", "wmt22-ja-en"])
def test_prompts_of_later_wmt_sets_are_those_of_wmt20_with_examples_of_the_other_year(name):
    like = settings_of(load_task(f"wmt20-{name[6:]}"), "corrected")
    task = load_task(name)
    assert settings_of(task, "corrected") == settings_of(task, "published") == like
    assert task.group == "beside"
    for item in questions(name):
        assert item.prompt.count("English phrase:") == 5
        assert not any(other.references[0] in item.prompt for other in questions(name))


def test_published_examples_of_wmt_are_test_sentences_and_corrected_ones_are_not():
    for item in questions("wmt20-en-ja"):
        assert item.prompt.count("English phrase:") == 5
        assert item.references[0] not in item.prompt  # the item itself is left out
        assert any(other.references[0] in item.prompt for other in questions("wmt20-en-ja"))
    for item in questions("wmt20-en-ja", "corrected"):
        assert not any(other.references[0] in item.prompt for other in questions("wmt20-en-ja"))


def test_every_defect_of_the_published_matrix_has_a_switch():
    of_1_5 = {"xlsum-ja": 3, "wmt20-en-ja": 4, "wmt20-ja-en": 4, "jsquad": 5, "squad2": 2, "humaneval": 1}
    for name, item in of_1_5.items():
        found = [defect.reference for defect in load_task(name).defects.values()]
        assert f"evaluation reference 1.5, item {item}" in found
    for name in task_names():
        task = load_task(name)
        same = settings_of(task, "published") == settings_of(task, "corrected")
        assert same != task.differs


def test_metrics_that_tasks_name_exist():
    for name in task_names():
        for variant in ("published", "corrected"):
            settings = settings_of(load_task(name), variant)
            assert {score.metric for score in settings.scores.values()} <= set(METRICS)
            assert settings.corpus is None or settings.corpus in CORPUS_METRICS
    assert metric_of("squad_exact")("The cat.", ["cat"]) == 1.0
    with pytest.raises(InputError, match='did you mean "squad_f1"'):
        metric_of("squad_f2")


def test_scoring_that_can_not_be_done_is_refused_before_a_model_is_asked():
    settings = load_task("gsm8k").settings
    require_scoring(settings)
    with pytest.raises(InputError, match='did you mean "bleu"'):
        require_scoring(settings.model_copy(update={"corpus": "blue"}))
    if importlib.util.find_spec("nagisa") is None:
        with pytest.raises(DependencyError, match="nagisa"):
            require_scoring(published("wmt20-en-ja"))


def test_manifest_pins_commit_hash_and_licence_of_every_github_file():
    for name in task_names():
        task = load_task(name)
        for origins in task.splits.values():
            for origin in origins:
                if origin.repository:
                    first = origin.files[0].replace("{subject}", (*task.subjects, "x")[0])
                    assert commit_of(origin.repository, first), (name, first)
    pin = manifest()["yahoojapan/JGLUE", "datasets/jcommonsenseqa-v1.1/valid-v1.1.json"]
    assert (pin.bytes, pin.sha256, pin.licence) == (235633, "0d8d76f3bfa0d174", "CC BY-SA 4.0")
    assert commit_of("hendrycks/test", "data/dev/anatomy_dev.csv") != commit_of(
        "hendrycks/test", "data/test/anatomy_test.csv"
    )


# Choosing examples


def records(count, **more):
    return [{"id": str(number), "text": f"t{number}", **more} for number in range(count)]


def test_shots_of_llm_jp_eval_are_the_head_of_the_shuffled_ninety_percent():
    numbers = list(range(1000))
    random.seed(42)
    random.shuffle(numbers)
    pool = records(1000)
    assert [int(record["id"]) for record in processed_train(pool)] == numbers[:900]
    chosen = shots_for(Shots(count=4, choice="processed_train"), records(3), pool)
    assert [int(record["id"]) for record in chosen[2]] == numbers[:4]
    assert pool == records(1000)


@pytest.mark.parametrize("extra", [0, 1])
def test_shots_of_lm_eval_are_drawn_afresh_with_one_generator(extra):
    pool, test = records(50), records(6, test=True)
    generator = random.Random(1234)
    expected = [tuple(generator.sample(pool, 4 + extra)[:4]) for _ in test]
    assert shots_for(Shots(count=4, choice="lm_eval", extra=extra), test, pool) == expected
    assert len({tuple(record["id"] for record in drawn) for drawn in expected}) == 6


def test_shots_of_the_same_split_leave_the_item_out():
    pool = records(5)
    with_extra = shots_for(Shots(count=4, choice="lm_eval", extra=1, split="test"), pool, pool)
    assert all(len(drawn) == 4 and item not in drawn for item, drawn in zip(pool, with_extra, strict=True))
    without = shots_for(Shots(count=4, choice="lm_eval", split="test"), pool, pool)
    assert {len(drawn) for drawn in without} == {
        3,
        4,
    }  # lm-evaluation-harness does so where no split is named


def test_shots_of_the_jp_harness_follow_its_shuffled_order():
    test, pool = records(7, test=True), records(20)
    generator = random.Random()
    generator.seed(42)
    documents = list(range(7))
    generator.shuffle(documents)
    expected = {number: tuple(generator.sample(pool, 4)) for number in documents}
    drawn = shots_for(Shots(count=4, choice="jp_harness"), test, pool)
    assert drawn == [expected[number] for number in range(7)]


def test_shots_more_than_there_are_is_an_error_that_counts():
    with pytest.raises(InputError, match="5 examples are drawn .* which has 4"):
        shots_for(Shots(count=4, choice="lm_eval", extra=1), records(2), records(4))
    with pytest.raises(InputError, match='"b" has 0 examples, 1 are needed'):
        shots_for(Shots(count=1, choice="subject"), records(1, subject="b"), records(3, subject="a"))


def test_jmmlu_split_has_the_published_arithmetic():
    # 53 subjects with 7,097 questions, 17 of them of odd size (the sizes themselves don't matter).
    sizes = [133 + 2 * (number % 2) for number in range(17)] + [132] * 35
    sizes.append(7097 - sum(sizes))
    assert (len(sizes), sum(size % 2 for size in sizes)) == (53, 17)
    parts = jmmlu_parts(
        [
            {"id": f"{subject}/{row}", "subject": subject}
            for subject, size in enumerate(sizes)
            for row in range(size)
        ]
    )
    assert [len(parts[name]) for name in ("train", "dev", "test")] == [32, 3540 - 16, 3541]
    seen = [record["id"] for part in parts.values() for record in part]
    assert len(seen) == len(set(seen)) == 7097


# Faults of a task's file


def broken(tmp_path, edit):
    text = (TASKS / "gsm8k.yaml").read_text(encoding="utf-8")
    changed = edit(text)
    assert changed != text
    path = tmp_path / "gsm8k.yaml"
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_task(path)
    return str(caught.value)


def test_task_file_without_a_field_names_file_and_line(tmp_path):
    said = broken(tmp_path, lambda text: text.replace("licence: MIT\n", ""))
    assert "gsm8k.yaml:1: licence: this field is missing" in said
    said = broken(tmp_path, lambda text: text.replace("{count: 4, choice", "{choice"))
    text = (tmp_path / "gsm8k.yaml").read_text().split("\n")
    line = next(number for number, row in enumerate(text, start=1) if "shots:" in row)
    assert f"gsm8k.yaml:{line}: settings.shots.count: this field is missing" in said


def test_task_file_with_an_unknown_field_says_what_is_meant(tmp_path):
    said = broken(tmp_path, lambda text: text.replace("delimiter:", "delimeter:"))
    assert 'settings.delimeter: there is no such field; did you mean "delimiter"?' in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("metric: gsm8k_strict", "metric: gsm8k_strict, extract: none", 'the extract "none", which is not'),
        ("split: train", "split: training", 'the split "training", which has no origin'),
        ("name: gsm8k", "name: gsm9k", 'its file "gsm8k"'),
        ("answer: generate", "answer: guess", "settings.answer"),
        ("items: 1319", "items: many", "gsm8k.yaml:8: items"),
        ("effect: score", "effect: prompt", "a defect of effect: prompt has patches"),
        ("references: answers", "references: null", "needs `references`"),
        ("title: GSM8K", "title: [GSM8K", "not YAML"),
    ],
)
def test_task_file_with_a_fault_is_refused(tmp_path, old, new, said):
    assert said in broken(tmp_path, lambda text: text.replace(old, new))


def test_task_file_of_endless_aliases_is_refused(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "many.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="100000 values"):
        read_task(tmp_path / "many.yaml")


def test_task_patch_that_breaks_the_settings_is_found_when_the_file_is_read(tmp_path):
    text = (
        (TASKS / "bbh.yaml")
        .read_text(encoding="utf-8")
        .replace('stops: ["</s>", "Q", ', 'stps: ["</s>", "Q", ')
    )
    (tmp_path / "bbh.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="stps: there is no such field"):
        read_task(tmp_path / "bbh.yaml")


def test_task_name_that_is_unknown_gets_the_nearest():
    with pytest.raises(InputError, match='did you mean "jsquad"'):
        load_task("jsqad")
    assert split_name("bbh@published", "corrected") == ("bbh", "published")
    with pytest.raises(InputError, match="does not exist"):
        split_name("bbh@new", "corrected")


def test_template_reads_no_template_in_a_value_and_names_what_is_missing():
    assert render("{a}-{b.1}", {"id": "1", "a": "{b}", "b": ["x", "{a}"]}) == "{b}-{a}"
    for template in ("{c}", "{b.7}", "{a.0.x}{c}"):
        with pytest.raises(InputError, match="which the record"):
            render(template, {"id": "1", "a": "x", "b": []})


def test_cut_sentences_keeps_whole_sentences_within_the_bytes():
    text = "一文目です。二文目です。三文目です。"
    assert cut_sentences(text, "。", 1000) == text
    assert cut_sentences(text, "。", 40) == "一文目です。二文目です。"
    assert cut_sentences(text, "。", 36) == "一文目です。二文目です。"
    assert cut_sentences(text, "。", 35) == "一文目です。"
    assert cut_sentences(text, "。", 10) == "一文目"
