"""The verbs. Nothing heavy is imported at the top: `tsugiki --help` answers in under 0.3 s.

The only module that reads Tsugiki's own environment variable, TSUGIKI_RUNS.
"""

from __future__ import annotations

import json as json_module
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from tsugiki import __version__
from tsugiki.errors import InputError, TsugikiError, did_you_mean

if TYPE_CHECKING:
    from tsugiki.workflow.planning import Plan

app = App(
    name="tsugiki",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # main() says what an interrupted run leaves
    help="""Graft a language onto an open large language model.

One recipe file drives it all: crawl, corpus, vocabulary, continual pre-training, evaluation, report.

Begin with `tsugiki plan recipes/demo-ja.yaml`, then `tsugiki run recipes/demo-ja.yaml`.
Every command explains itself: `tsugiki run --help`.""",
)

Json = Annotated[
    bool,
    Parameter(
        name="--json", negative="", show_default=False, help="Print the result as JSON, and nothing else."
    ),
]
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
Runs = Annotated[
    Path, Parameter(name="--runs", env_var="TSUGIKI_RUNS", help="Directory that holds the runs.")
]
Scale = Annotated[
    Literal["mini"] | None,
    Parameter(name="--scale", help="mini: shrink any recipe to one that a laptop replays in minutes."),
]


@app.command(sort_key=1)
def plan(recipe: Path, *, scale: Scale = None, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Check everything, and estimate documents, tokens, memory, time and disk. No work is done.

    Every problem of the recipe is shown at once, with its line.

    Example: `tsugiki plan recipes/swallow-llama2-7b.yaml`

    Args:
        recipe: The recipe file (YAML).
        scale: Size at which to plan.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.workflow.tables import print_plan

    found = _plan(recipe, scale, runs)
    if json:
        _print_json(found.as_dict())
    else:
        print_plan(found)
    if found.problems:
        from tsugiki.errors import RecipeError

        raise RecipeError(found.problems)


@app.command(sort_key=2)
def run(
    recipe: Path,
    *,
    until: str | None = None,
    only: str | None = None,
    scale: Scale = None,
    rebuild: Flag = False,
    accept: Flag = False,
    fork: str | None = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Run a recipe, going on where the last run stopped, and write its report.

    Finished stages are kept. A run that was killed at any moment goes on with the same command. When a
    finished stage no longer fits the recipe, nothing runs, the difference is shown, and you choose:
    `--rebuild`, `--fork` or `--accept`.

    Example: `tsugiki run recipes/demo-ja.yaml --until vocabulary`

    Args:
        recipe: The recipe file (YAML).
        until: Run this stage and what it needs, nothing more.
        only: Run this stage alone; what it reads must be done.
        scale: Size at which to run; `mini` has a run directory of its own.
        rebuild: Make stages that no longer fit the recipe again, with all that reads them.
        accept: Keep results that no longer fit; their manifests say that you did.
        fork: Leave the old run as it is, and go on in a run of this name with what still fits.
        runs: Directory that holds the runs.
        json: Print JSON when the run has ended, and nothing before.
    """
    from tsugiki.report import write_report
    from tsugiki.workflow.display import choose_display
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.recipe import load_recipe
    from tsugiki.workflow.running import RunOptions, run_recipe

    if sum((rebuild, accept, fork is not None)) > 1:
        raise InputError("--rebuild, --accept and --fork exclude each other", hint="give one of them")
    graph = build_graph(load_recipe(recipe, scale=scale))
    display = choose_display(silent=json)
    options = RunOptions(until, only, rebuild, accept, fork)
    try:
        result = run_recipe(graph, _directory(graph.recipe.name, scale, runs), options, display)
    finally:
        display.close()
    report_file = write_report(result.directory)
    if json:
        done = {
            "directory": result.directory,
            "ran": result.ran,
            "reused": result.reused,
            "report": report_file,
        }
        _print_json(done)
    else:
        print(f"\nReport: {report_file}")


@app.command(sort_key=3)
def status(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Show what is done, running, stale, failed or waiting, and why.

    Example: `tsugiki status demo-ja`

    Args:
        target: A run's name, its directory, or a recipe file.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.workflow.tables import print_standings, standing_as_dict

    found = _plan_of_run(target, runs)
    if json:
        rows = [standing_as_dict(stage.standing) for stage in found.stages]
        _print_json({"directory": found.directory, "stages": rows})
    else:
        print_standings(found)


@app.command(sort_key=4)
def report(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Write the report of a run: one HTML file, made from the run's files alone.

    The same files give the same bytes, so it can be deleted and made again at any time.

    Example: `tsugiki report runs/demo-ja`

    Args:
        target: A run's name or its directory.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.report import write_report

    file = write_report(_run_directory(target, runs))
    if json:
        _print_json({"report": file})
    else:
        print(file)


@app.command(sort_key=5)
def verify(target: str, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Compare every file of a run with the SHA-256 in its manifest.

    Example: `tsugiki verify demo-ja`

    Args:
        target: A run's name, its directory, or the directory of one stage.
        runs: Directory that holds the runs.
        json: Print JSON.
    """
    from tsugiki.artifacts.manifest import is_finished, read_manifest, verify_files
    from tsugiki.errors import StorageError

    directory = _run_directory(target, runs)
    stages = [path for path in (directory, *sorted(directory.iterdir())) if is_finished(path)]
    if not stages:
        raise InputError(
            f"{directory} holds no finished stage", hint="name a run, or the directory of a stage"
        )
    faults: dict[str, list[str]] = {}
    for path in stages:
        try:
            faults[path.name] = verify_files(path, read_manifest(path))
        except InputError as error:
            faults[path.name] = [error.message]
    bad = [path for path in stages if faults[path.name]]
    if json:
        _print_json({"directory": directory, "faults": faults})
        sys.exit(1 if bad else 0)
    for name, said in faults.items():
        print(f"{name}: " + ("; ".join(said) or "as in its manifest"))
    if bad:
        named = ", ".join(path.name for path in bad)
        hint = f"delete {' and '.join(str(path) for path in bad)}, then run the recipe again"
        raise StorageError(f"files differ from their manifests in: {named}", hint=hint)


@app.command(sort_key=6)
def schema(kind: str | None = None, *, json: Json = False) -> None:
    """List the keys that a stage of a kind may have in a recipe: types, defaults and meanings.

    Example: `tsugiki schema train`

    Args:
        kind: corpus, vocabulary, upcycle, train or evaluate; without it, the kinds are listed.
        json: Print the JSON schema.
    """
    from tsugiki.workflow.kinds import KINDS, stage_module
    from tsugiki.workflow.tables import print_kinds, print_schema

    if kind is None:
        _print_json(list(KINDS)) if json else print_kinds()
        return
    if kind not in KINDS:
        raise InputError(f'there is no kind of stage "{kind}"', hint=did_you_mean(kind, list(KINDS)))
    config = stage_module(kind).Config
    if json:
        _print_json(config.model_json_schema())
    else:
        print_schema(kind, config)


_STAGES = {
    "upcycle": (
        "Turn a dense model into a mixture of experts (Drop-Upcycling and its baselines), with proof.",
        "tsugiki upcycle out/sparse --model out/adapted --num-experts 8 --ratio 0.5",
    ),
}
_ALONE = """Inputs are directories that other stages made, or plain files; values are written as in a recipe.
The result is an artifact like that of a run: killed at any moment, the same command goes on where it was."""
_CORPUS = f"""Turn a crawl (WARC) or other documents into clean, deduplicated documents of one language.

`tsugiki corpus OUT --source ... --language ...` makes a corpus: of WARC, WET, JSON lines or Parquet files,
given as paths, globs, http(s):// and s3:// addresses, or as a listing such as Common Crawl's warc.paths.gz.
Everything that was dropped is kept aside with all its reasons; the commands below select from Common Crawl,
see and steer.

{_ALONE}

Example: `tsugiki corpus out/japanese --source 'crawl/*.warc.gz' --language ja --heldout 0.1`"""
app.command(
    "tsugiki.commands.corpus:app",
    name="corpus",
    help=_CORPUS,
    sort_key=9,
)
_VOCABULARY = f"""Extend a model's tokenizer and embeddings for a language, and show what it saves.

`tsugiki vocabulary OUT --model ... --corpus ... --add ...` extends a model; `tsugiki vocabulary measure`
shows before that what a tokenizer makes of documents, and what how many new pieces would save.

{_ALONE}

Example: `tsugiki vocabulary out/extended --model base --corpus out/japanese --add 8k`"""
app.command("tsugiki.commands.vocabulary:app", name="vocabulary", help=_VOCABULARY, sort_key=10)
_TRAIN = f"""Train a model on documents: from scratch, or on from a base model.

`tsugiki train OUT --model ... --data ... --tokens ...` trains, in one process or in many (`--parallel`).
`--dry-run` shows what each process of the layout would hold, `--sbatch` prints a Slurm script; both also
take a recipe. The commands below list the checkpoints of a run and make a Hugging Face model of any of them,
at any time.

{_ALONE}

Example: `tsugiki train out/adapted --model out/extended --data '{{out/japanese: 1.0}}' --tokens 10M`

Example: `tsugiki train recipes/swallow-llama2-7b.yaml --stage adapted --dry-run`"""
app.command("tsugiki.commands.train:app", name="train", help=_TRAIN, sort_key=11)
_EVALUATE = f"""Score models on held-out documents and on benchmarks, with intervals and paired tests.

`tsugiki evaluate OUT --models ... --tasks ...` scores models; `tsugiki evaluate tasks` lists the benchmarks,
with their licences and the known faults of published numbers; `tsugiki evaluate fetch` downloads their files.

{_ALONE}

Example: `tsugiki evaluate out/scores --models base --models out/adapted --heldout out/japanese`

Example: `tsugiki evaluate out/scores --models base --tasks gsm8k --tasks jemhopqa --data sample`"""
app.command("tsugiki.commands.evaluate:app", name="evaluate", help=_EVALUATE, sort_key=13)
_CONTAMINATION = """Find benchmark items in training documents, and what scores are without them.

`tsugiki contamination DOCUMENTS --tasks ... --data FOLDER` streams documents (a corpus stage's directory,
.jsonl, .parquet or .txt files) past an index of the items' character n-grams, so it works without spaces
between words. With `--scores` it compares a finished evaluation with and without the items that were found.

Example: `tsugiki contamination out/japanese --tasks jcommonsenseqa niilc --data benchmarks`"""
app.command(
    "tsugiki.commands.contamination:contamination", name="contamination", help=_CONTAMINATION, sort_key=16
)
_COMPARE = """Compare models item by item: intervals, paired tests and verdicts in words.

Takes evaluate stages, tables of items and logs of lm-evaluation-harness; aligns the items, and says what could
not be aligned. Methods are chosen for the data and named: Wilson, CLT or bootstrap, by clusters where items
share a passage; exact McNemar, paired t or paired bootstrap; Holm or Benjamini-Hochberg over the tasks. Where no
difference is seen, it says which one would have been, and how many questions the one that matters needs.

Example: `tsugiki compare runs/demo-ja/scores`

Example: `tsugiki compare old=a/scores new=b/scores --correction bh --html compared.html`"""
app.command("tsugiki.commands.compare:compare", name="compare", help=_COMPARE, sort_key=13)
_JUDGE = """Score a model's answers about images by a judge, after Heron-Bench's protocol.

`tsugiki judge QUESTIONS ANSWERS --reference ... --judgments FILE --address http://...` asks any address that
speaks OpenAI's protocol and keeps every review; without `--address` it replays what is kept and asks no one.
Scores are relative to the reference's answers, by category, with intervals over images. `--swap` asks in both
orders and shows how often the order decides. Reviews that can't be read are counted, never taken for -1.

Example: `tsugiki judge questions.jsonl model.jsonl --reference gpt4.jsonl --judgments reviews.jsonl`"""
app.command("tsugiki.commands.judge:judge", name="judge", help=_JUDGE, sort_key=17)
_PLANNER = """Find the parallel layout of a model on so many GPUs: memory, speed, cost, before one is rented.

Every legal layout is judged: `safe` (tensors count to at most 80 % of the memory), `probe` (80 to 90 %: try a
few steps) or refused, with the reason and the nearest change that fits; and ranked by predicted speed.

    tsugiki planner llama-3-70b --gpus 512 --device h100-80gb --sequence 8192 --batch 1024 --tokens 100B
    tsugiki planner recipes/swallow-llama2-7b.yaml --stage adapted --gpus 32 --device a100-40gb
    tsugiki planner config.json --gpus 64 --sequence 4096 --batch 512 --tensor 2,4 --html layouts.html
    tsugiki planner mixtral-8x7b --gpus 64 --sequence 4096 --batch 1024 --emit megatron-lm

A device of your own: a TOML file, `--devices FILE`, with `[ours]` and `like = "h100-80gb"`, `node = 4`,
`network_bandwidth = 25e9`, `dollars_per_hour = 2.1`.

Example: `tsugiki planner llama-3.1-8b --gpus 16 --device h100-80gb --sequence 8192 --batch 1024`"""
app.command("tsugiki.commands.planner:app", name="planner", help=_PLANNER, sort_key=14)
_STUDY = """Study a table of models x benchmarks: what is measured in common, and what compute buys.

`tsugiki study TABLE` checks the scores (zeros, chance, bounds, stale averages, outliers), finds the principal
components with a bootstrap and parallel analysis, correlates benchmarks, and with `--budgets` sets factors and
benchmarks against the compute of each language (6ND) with errors by model family.

    tsugiki study --example --html study.html
    tsugiki study scores.csv --budgets budgets.csv --rotation promax
    tsugiki study runs/demo-ja/scores more-scores.parquet --percent --drop Elo
    tsugiki study mixture runs.csv --target bpb_ja --other bpb_en --parameters 7B --tokens 100B --allow 0.02

A table has a row a model and a column a benchmark, scores in [0, 1]; an empty cell is a missing score.

Example: `tsugiki study --example`"""
app.command("tsugiki.commands.study:app", name="study", help=_STUDY, sort_key=15)
for _number, (_verb, (_short, _example)) in enumerate(_STAGES.items()):
    app.command(
        f"tsugiki.stage_commands:{_verb}",
        name=_verb,
        help=f"{_short}\n\n{_ALONE}\n\nExample: `{_example}`",
        sort_key=12 + _number,
    )


def _plan(recipe: Path, scale: Literal["mini"] | None, runs: Path) -> Plan:
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan
    from tsugiki.workflow.recipe import load_recipe

    graph = build_graph(load_recipe(recipe, scale=scale))
    return make_plan(graph, _directory(graph.recipe.name, scale, runs))


def _directory(name: str, scale: str | None, runs: Path) -> Path:
    return runs / (name if scale is None else f"{name}-{scale}")


def _run_directory(target: str, runs: Path) -> Path:
    """The directory meant by a path or by a name below `runs`."""
    for path in (Path(target), runs / target):
        if path.is_dir():
            return path
    known = [path.name for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    raise InputError(f'there is no run "{target}" here or in {runs}', hint=did_you_mean(target, known))


def _plan_of_run(target: str, runs: Path) -> Plan:
    """The plan of a run directory, or of a recipe's run directory."""
    from tsugiki.artifacts.files import read_json
    from tsugiki.workflow.graph import build_graph
    from tsugiki.workflow.planning import make_plan
    from tsugiki.workflow.recipe import load_recipe

    if Path(target).suffix in {".yaml", ".yml"}:
        return _plan(Path(target), None, runs)
    directory = _run_directory(target, runs)
    if not (directory / "origin.json").exists():
        raise InputError(f"{directory} is not a run directory", hint="a run holds recipe.yaml and run.json")
    origin = read_json(directory / "origin.json")
    recipe = Path(origin["recipe"])
    if recipe.exists():
        graph = build_graph(load_recipe(recipe, scale=origin["scale"]))
    else:  # the recipe has moved: what was run is all that is known
        graph = build_graph(load_recipe(directory / "recipe.yaml"))
    return make_plan(graph, directory)


def _print_json(value: Any) -> None:
    print(json_module.dumps(value, indent=2, ensure_ascii=False, default=str))


def _run_app() -> None:
    """Run the command; where Slurm or torchrun started many processes of it, all but the first follow."""
    if not {"run", "train", "evaluate"} & set(sys.argv[1:2]) or "WORLD_SIZE" not in os.environ:
        app()
        return
    if sys.argv[1] == "evaluate":
        _run_evaluation()
        return
    from tsugiki.training.outside import follow, leading, place_of

    place = place_of()
    if place is None:
        app()
    elif place.rank > 0:
        follow(place)
    else:
        with leading(place):
            app()


def _run_evaluation() -> None:
    """Process 0 runs the stage; the others answer their part of the items into the same directory."""
    from tsugiki.evaluation.sharing import follow, share_of

    out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path()  # noqa: PLR2004 (tsugiki evaluate OUT)
    if share_of(out).rank == 0:
        app()
        return
    from tsugiki.evaluation.models import answer_job

    follow(out / "work", answer_job)


def main() -> None:
    """The entry point of the `tsugiki` program: errors become one message and an exit status.

    1 something failed, 2 the recipe or a path is wrong, 3 drift, 130 interrupted.
    """
    try:
        _run_app()
    except TsugikiError as error:
        if "--json" in sys.argv:
            _print_json({"error": error.as_dict()})
        sys.stderr.write(f"\nError: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. What is finished is kept: the same command goes on.\n")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except (OSError, RecursionError) as error:
        sys.stderr.write(f"\nError: {error}\nHint: check the path, what is there and who may write it\n")
        sys.exit(1)
