"""What a judge is told and what is read of its reviews; files with something missing."""

from __future__ import annotations

import numpy as np
import pytest

from tsugiki.errors import DataError, InputError
from tsugiki.evaluation.judge.judging import parse_scores, parse_scores_as_published
from tsugiki.evaluation.judge.questions import messages, read_prompts, read_questions


def questions_of(judged):
    return read_questions(
        *(judged / f"{name}.jsonl" for name in ("questions", "reference", "answers", "contexts"))
    )


def model_is_first(text: str) -> bool:
    return text.index("mine") < text.index("gold")


@pytest.mark.parametrize(
    ("review", "scores", "published"),
    [
        ("8 7\nbecause", (8, 7), (8, 7)),
        (" 8.5, 7 \nbecause", (8.5, 7), (8.5, 7)),
        ("8,7", (8, 7), (8, 7)),
        ("10 1", (10, 1), (10, 1)),
        ("", None, (-1, -1)),
        ("\n8 7", None, (-1, -1)),
        ("8", None, (-1, -1)),
        ("8 7 6", None, (-1, -1)),
        ("Assistant 1: 8", None, (-1, -1)),
        ("score1 score2", None, (-1, -1)),
        ("8/10 7/10", None, (-1, -1)),
        ("0 7", None, (0, 7)),  # out of the scale: the published rule takes it
        ("95 80", None, (95, 80)),
        ("nan 7", None, None),
        ("８ ７", (8, 7), (8, 7)),
    ],
)
def test_parse_scores_takes_two_numbers_of_the_scale_and_nothing_else(review, scores, published):
    assert parse_scores(review) == scores
    found = parse_scores_as_published(review)
    assert found == published if published else np.isnan(found[0])


def test_prompt_holds_each_part_once_and_answers_are_not_templates(judged):
    question = questions_of(judged)[5]
    sent = messages(read_prompts(), question, swapped=False)
    text = sent[1]["content"]
    assert [one["role"] for one in sent] == ["system", "user"]
    for part in ("絵2", "問5？", "gold q5", "mine q5 {first} {task}"):
        assert text.count(part) == 1
    assert not model_is_first(text)
    assert model_is_first(messages(read_prompts(), question, swapped=True)[1]["content"])
    assert "asks for a description" in text


@pytest.mark.parametrize(
    ("file", "lines", "said"),
    [
        ("answers", [{"question_id": "q0", "text": "x"}], "holds no answer to question q1"),
        ("answers", [{"question_id": "q0"}], "has no text"),
        ("questions", [{"text": "x"}], "neither question_id nor id"),
        ("questions", [{"question_id": "q0", "text": "x", "image": "0.jpg"}], "q0 .* has no category"),
        ("contexts", [{"image": "0.jpg", "caption": "x"}], "has no context"),
        ("questions", [], "holds no question"),
        ("questions", ["text"], "is no object"),
    ],
)
def test_files_with_something_missing_are_refused(judged, file, lines, said, write):
    write(judged / f"{file}.jsonl", lines)
    with pytest.raises((InputError, DataError), match=said):
        questions_of(judged)


def test_prompt_file_without_a_place_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("system: s\nbody: '{context} {question} {first} {second}'\ntasks: {default: d}\n")
    with pytest.raises(InputError, match="no place for task"):
        read_prompts(path)
    path.write_text("system: s\nbody: b\n")
    with pytest.raises(InputError, match="no file of judge prompts"):
        read_prompts(path)
