"""What options of a stage's command stand for."""

import pytest

from tsugiki.stage_commands import config_of

GIVEN = {"model": "base", "data": "{a.jsonl: 1.0}", "tokens": "1M"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["one"], ("one",)),
        (["one", "two"], ("one", "two")),
        (["[one, two.jsonl]"], ("one", "two.jsonl")),
        (["[one, two]", "three"], ("one", "two", "three")),
        (["[ab]*.jsonl"], ("[ab]*.jsonl",)),
    ],
)
def test_config_of_several_values_takes_them_one_by_one_or_as_a_recipe_lists_them(given, expected):
    assert config_of("train", GIVEN | {"validation": given}).validation == expected


def test_config_of_phases_reads_mappings_one_by_one_or_in_a_list():
    one, two = (f"{{name: {name}, tokens: 1M, data: {{{name}: 1}}}}" for name in "ab")
    given = {"model": "base"}
    apart = config_of("train", given | {"phases": [one, two]})
    assert [phase.name for phase in apart.phases] == ["a", "b"]
    assert config_of("train", given | {"phases": [f"[{one}, {two}]"]}) == apart
