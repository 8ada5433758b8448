"""Which worked examples stand before a question, drawn as each harness drew them.

first            the first ones of the split
processed_train  llm-jp-eval: the split shuffled by random.Random(42), the first 90 % of it, the first of
                 these; the same for every item
lm_eval          lm-evaluation-harness 0.4.2: random.Random(1234) draws for each item, in the test's order
jp_harness       the JP harness: random.Random(42) shuffles the test items, then draws afresh for each of them
subject          the first ones of the split that are of the item's subject (MMLU)
written          the examples are part of the preamble (BBH)

`extra` more are drawn than are shown, and the item itself is left out of them. With extra 0 an item that is
drawn as its own example is left out too, and one example fewer is shown: so the harness does.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tsugiki.errors import InputError
from tsugiki.evaluation.benchmarks.schema import Shots

Record = Mapping[str, Any]

PROCESSED_SEED = 42
LM_EVAL_SEED = 1234
JP_HARNESS_SEED = 42


def shots_for(shots: Shots, test: Sequence[Record], pool: Sequence[Record]) -> list[tuple[Record, ...]]:
    """The examples of every test item, in the test's order.

    Raises InputError where the split has fewer than are needed.
    """
    if shots.count == 0 or shots.choice == "written":
        return [()] * len(test)
    if shots.choice == "subject":
        return _by_subject(shots, test, pool)
    if len(pool) < shots.count + shots.extra:
        raise InputError(
            f'{shots.count + shots.extra} examples are drawn from the split "{shots.split}", '
            f"which has {len(pool)}",
            hint="use a larger split, or fewer shots",
        )
    if shots.choice in {"first", "processed_train"}:
        same = tuple((processed_train(pool) if shots.choice == "processed_train" else pool)[: shots.count])
        return [same] * len(test)
    order = range(len(test))
    generator = random.Random(LM_EVAL_SEED)  # noqa: S311 (the harness's own generator)
    if shots.choice == "jp_harness":
        generator = random.Random(JP_HARNESS_SEED)  # noqa: S311
        order = list(order)  # type: ignore[assignment]
        generator.shuffle(order)  # type: ignore[arg-type]
    drawn: list[tuple[Record, ...]] = [()] * len(test)
    for number in order:
        chosen = generator.sample(range(len(pool)), shots.count + shots.extra)
        others = [pool[place] for place in chosen if pool[place] != test[number]]
        drawn[number] = tuple(others[: shots.count])
    return drawn


def processed_train(pool: Sequence[Record]) -> list[Record]:
    """llm-jp-eval's processed train split: shuffled with seed 42, the first 90 %."""
    shuffled = list(pool)
    random.Random(PROCESSED_SEED).shuffle(shuffled)  # noqa: S311
    return shuffled[: int(len(shuffled) * 0.9)]


def _by_subject(shots: Shots, test: Sequence[Record], pool: Sequence[Record]) -> list[tuple[Record, ...]]:
    by_subject: dict[str, list[Record]] = defaultdict(list)
    for record in pool:
        by_subject[record["subject"]].append(record)
    for record in test:
        if len(by_subject[record["subject"]]) < shots.count:
            raise InputError(
                f'the subject "{record["subject"]}" has {len(by_subject[record["subject"]])} examples, '
                f"{shots.count} are needed",
                hint="fetch the split again",
            )
    return [tuple(by_subject[record["subject"]][: shots.count]) for record in test]


def jmmlu_parts(records: Sequence[Record]) -> dict[str, list[Record]]:
    """llm-jp-eval's split of JMMLU: subject by subject, in the files' order, with one generator of seed 42.

    Each subject is shuffled, its first half (rounded down) goes to dev, the rest to test; both are shuffled.
    The examples are the first 16 of dev and the first 16 of test, which are taken out of it: 7,097 questions
    of 53 subjects, 17 of them of odd size, leave 3,557 - 16 = 3,541.
    """
    by_subject: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_subject[record["subject"]].append(record)
    generator = random.Random(PROCESSED_SEED)  # noqa: S311
    development: list[Record] = []
    test: list[Record] = []
    for questions in by_subject.values():
        generator.shuffle(questions)
        half = len(questions) // 2
        development += questions[:half]
        test += questions[half:]
    generator.shuffle(development)
    generator.shuffle(test)
    half = min(JMMLU_EXAMPLES // 2, len(development) // 2, len(test) // 2)
    return {"train": development[:half] + test[:half], "dev": development[half:], "test": test[half:]}


JMMLU_EXAMPLES = 32
