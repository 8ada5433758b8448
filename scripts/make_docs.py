"""Write docs/reference and the options of the stages from the code, so that they can't drift from it.

python scripts/make_docs.py            write docs/reference/{cli,recipe}.md, src/tsugiki/stage_options.json
python scripts/make_docs.py --check    exit with 1 if they are not what the code says
"""

from __future__ import annotations

import io
import json
import sys
import typing
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console

from tsugiki.artifacts.contract import EXECUTION
from tsugiki.cli import app
from tsugiki.command_groups import GROUPS
from tsugiki.stage_commands import OPTIONS, options_of
from tsugiki.workflow.kinds import KINDS, stage_module
from tsugiki.workflow.recipe import RecipeHead
from tsugiki.workflow.type_names import type_name

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
VERBS = (
    "plan",
    "run",
    "status",
    "report",
    "verify",
    "schema",
    *GROUPS,
)
BELOW = {
    "evaluate": ("tasks", "fetch", "refusals", "import", "export"),
    "corpus": ("select", "sweep", "show", "export", "train-classifier"),
    "vocabulary": ("measure",),
    "planner": ("calibrate", "measured", "verify"),
    "study": ("factors", "scaling", "predict", "law", "mixture"),
    "train": ("checkpoints", "export"),
}
NOTE = "<!-- Made by scripts/make_docs.py from the code; edit the code, then `make docs`. -->\n"


def cli_page() -> str:
    """The help text of the program and of every verb, as a terminal of 100 columns shows it."""
    parts = [NOTE, "# Commands\n", "```text", _help([]), "```\n"]
    for verb in VERBS:
        for words in ([verb], *([verb, name] for name in BELOW.get(verb, ()))):
            parts += [f"## tsugiki {' '.join(words)}\n", "```text", _help(words), "```\n"]
    return "\n".join(parts)


def _help(verb: list[str]) -> str:
    text = io.StringIO()
    console = Console(file=text, width=100, color_system=None, force_terminal=False, legacy_windows=False)
    app.help_print(verb, console=console)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


def recipe_page() -> str:
    """Every key of a recipe: type, default, meaning."""
    parts = [NOTE, "# Recipes\n", _RECIPE_INTRODUCTION, *_table(RecipeHead)]
    for kind in KINDS:
        module = stage_module(kind)
        first = (module.Config.__doc__ or "").strip()
        parts += [
            f"\n## kind: {kind}\n",
            f"{first}\n",
            f"Makes: {module.PRODUCES.value}.\n",
            *_table(module.Config),
        ]
    return "\n".join(parts) + "\n"


_RECIPE_INTRODUCTION = """\
A recipe is a YAML 1.2 file: a few keys at the top, and a graph of named stages. A stage names its inputs by
the names of other stages or by paths (relative to the working directory, or to the recipe). Counts may be
written as `4096`, `200k`, `1.5M`, `104.86B`. Keys with a `*` say how to run and not what comes out: changing
one is not drift.
"""


def _table(model: type[BaseModel]) -> list[str]:
    return ["| key | type | default | meaning |", "|---|---|---|---|", *_rows(model, "")]


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, info in model.model_fields.items():
        mark = "*" if EXECUTION in info.metadata else ""
        default = "required" if info.is_required() else f"`{info.get_default(call_default_factory=True)}`"
        cells = (
            f"`{prefix}{name}`{mark}",
            f"`{type_name(info.annotation)}`",
            default,
            info.description or "",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
        for member in (info.annotation, *typing.get_args(info.annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel):
                rows += _rows(member, f"{prefix}{name}.")
    return rows


def options_file() -> str:
    """The options of every stage's command, which the program reads instead of importing the stages."""
    return json.dumps({kind: options_of(kind) for kind in KINDS}, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write or check the files; the exit status is 1 if a check fails."""
    check = "--check" in sys.argv[1:]
    # the options come first: the help text is made from their file
    stale = [path for path, make in _FILES.items() if not _is_same(path, make(), write=not check)]
    if check and stale:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the code says. Hint: run `make docs` and commit it.")
        return 1
    return 0


def _is_same(path: Path, text: str, *, write: bool) -> bool:
    """Whether the file holds the text; if not, and if asked to, write it."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return True
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return False


_FILES = {OPTIONS: options_file, REFERENCE / "cli.md": cli_page, REFERENCE / "recipe.md": recipe_page}


if __name__ == "__main__":
    sys.exit(main())
