"""`tsugiki evaluate`: the stage alone, the list of benchmarks, and fetching their files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from tsugiki import stage_commands
from tsugiki.commands.evaluate_exchange import export, import_
from tsugiki.commands.terminal import Json, columns, print_json

app = App(name="evaluate", help_format="markdown")
app.default(stage_commands.evaluate)
app.command(import_, name="import")
app.command(export, name="export")


@app.command(name="tasks")
def tasks_(*, json: Json = False) -> None:
    """List the benchmarks: items, examples, metric, known faults of published numbers, licence.

    Example: `tsugiki evaluate tasks`

    Args:
        json: Print the tasks as JSON, with what each fault is and where it is described.
    """
    from tsugiki.evaluation.benchmarks.names import task_names
    from tsugiki.evaluation.benchmarks.reading import load_task

    order = ("nineteen", "beside", "safety", "own")
    found = sorted((load_task(name) for name in task_names()), key=lambda task: order.index(task.group))
    if json:
        print_json([_facts(task) for task in found])
        return
    head = ("task", "language", "items", "shots", "metric", "faults of the published run", "licence")
    rows = [
        (
            task.name,
            task.language,
            "?" if task.items is None else f"{task.items:,}",
            str(task.settings.shots.count),
            task.metric,
            ", ".join(task.defects) or "–",
            task.licence if task.redistributable else f"{task.licence} (not to be passed on)",
        )
        for task in found
    ]
    for line in columns([head, *rows], right=(2, 3)):
        print(line)


def _facts(task: Any) -> dict[str, Any]:
    facts: dict[str, Any] = task.model_dump(mode="json", exclude={"settings", "subjects", "splits"})
    facts["sources"] = {
        split: [origin.repository or origin.hub or "local" for origin in origins]
        for split, origins in task.splits.items()
    }
    return {**facts, "shots": task.settings.shots.count}


@app.command
def fetch(
    folder: Path,
    *,
    tasks: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    source: Literal["any", "github", "hub"] = "any",
    accept_hash: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    address: str | None = None,
    hub_address: str | None = None,
    json: Json = False,
) -> None:
    """Download benchmarks' files into a folder, at pinned commits, each checked against its known hash.

    Nothing is downloaded at any other time. What has no public address is listed, to be put there by hand.
    Each benchmark keeps its own licence.

    Example: `tsugiki evaluate fetch benchmarks --tasks jcommonsenseqa niilc mmlu`

    Args:
        folder: Where the files go, as OWNER/REPOSITORY/PATH; the `data` of an evaluate stage.
        tasks: Names of tasks; all of them by default.
        source: Take GitHub's files or the hub's datasets only.
        accept_hash: First 16 digits of SHA-256 that are taken although another one is pinned.
        address: A mirror of raw.githubusercontent.com.
        hub_address: A mirror of huggingface.co.
        json: Print what was fetched as JSON.
    """
    from tsugiki.evaluation.benchmarks.fetch import GITHUB, Fetched, fetch_task
    from tsugiki.evaluation.benchmarks.names import task_names
    from tsugiki.evaluation.benchmarks.reading import load_task

    done: list[Fetched] = []

    def notify(row: Fetched) -> None:
        if not json:
            where = f"{row.source}: " if row.source else f"put it into {row.note}: "
            facts = f"{row.bytes:,} bytes  {row.licence}" if row.source else ""
            print(f"{row.task} {row.split}  {row.state}  {where}{row.file}  {facts}".rstrip())

    for name in tasks or tuple(task_names()):
        done += fetch_task(
            load_task(name),
            folder,
            where=source,
            accept=accept_hash,
            address=(address or GITHUB).rstrip("/"),
            hub_address=hub_address,
            notify=notify,
        )
    if json:
        print_json([vars(row) for row in done])


@app.command
def refusals(scores: Path, *, json: Json = False) -> None:
    """Show how often models decline, by category, with Wilson intervals (the task `refusals`).

    Example: `tsugiki evaluate refusals out/scores`

    Args:
        scores: Directory of an evaluate stage that asked the task.
        json: Print the rates as JSON.
    """
    from tsugiki.artifacts.scores import read_scores
    from tsugiki.evaluation.benchmarks.refusals import refusal_rates

    rates = refusal_rates(read_scores(scores))
    if json:
        print_json([{**vars(rate), "rate": rate.rate} for rate in rates])
        return
    rows = [("model", "category", "expected", "declined", "rate", "95 % interval")]
    rows += [
        (
            rate.model,
            rate.category,
            rate.expected,
            f"{rate.refused} of {rate.items}",
            f"{rate.rate:.2f}",
            f"{rate.low:.2f} to {rate.high:.2f}",
        )
        for rate in rates
    ]
    for line in columns(rows, right=(3, 4)):
        print(line)
