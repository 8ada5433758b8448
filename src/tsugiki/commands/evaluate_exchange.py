"""`tsugiki evaluate import|export`: to and from lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tsugiki.commands.terminal import Json, print_json


def import_(logs: Path, *, out: Path, json: Json = False) -> None:
    """Make item scores of lm-evaluation-harness's logs, for `tsugiki compare`.

    Of several logs of one model and task the newest counts.

    Example: `tsugiki evaluate import results/ --out out/harness`

    Args:
        logs: A samples_*.jsonl, or a directory with such files below it (`lm_eval --log_samples`).
        out: Directory that takes scores.parquet; made if absent.
        json: Print the counts as JSON.
    """
    from tsugiki.artifacts.scores import SCORES, write_scores
    from tsugiki.evaluation.exchange import read_lm_eval

    rows = read_lm_eval(logs)
    out.mkdir(parents=True, exist_ok=True)
    write_scores(out / SCORES, rows)
    counts = {
        "rows": len(rows),
        "models": len({row["model"] for row in rows}),
        "tasks": len({row["task"] for row in rows}),
        "without_score": sum(row["score"] is None for row in rows),
    }
    if json:
        print_json({"scores": out / SCORES, **counts})
        return
    print(f"{out / SCORES}: " + ", ".join(f"{value:,} {name}" for name, value in counts.items()))


def export(
    tasks: Annotated[list[str], Parameter(negative="")],
    *,
    out: Path,
    data: str | None = None,
    variant: Literal["corrected", "published"] = "corrected",
    maximum_items: int | None = None,
    json: Json = False,
) -> None:
    """Write benchmarks as tasks of lm-evaluation-harness, with the same prompts to the letter.

    Run them with `lm_eval --include_path OUT --tasks tsugiki-NAME`. The files hold the benchmarks' items:
    their licences go with them.

    Example: `tsugiki evaluate export mmlu gsm8k --data sample --out out/harness-tasks`

    Args:
        tasks: Benchmarks by name, by name@published, or as YAML files.
        out: Directory that takes a .yaml and a .jsonl file for each; made if absent.
        data: Folder with the benchmarks' files (`tsugiki evaluate fetch`), or the word sample.
        variant: Without the known faults of the published runs, or with them.
        maximum_items: Items of each benchmark, at most.
        json: Print the files as JSON.
    """
    import logging

    from tsugiki.evaluation.benchmarks.asking import ask
    from tsugiki.evaluation.exchange import export_tasks

    asked = ask(
        tasks,
        data=data,
        variant=variant,
        maximum_items=maximum_items,
        accept_hashes=(),
        seed=0,
        log=logging.getLogger("tsugiki"),
    )
    out.mkdir(parents=True, exist_ok=True)
    written = export_tasks(asked, out)
    if json:
        print_json({"files": written})
        return
    print("\n".join(map(str, written)))
