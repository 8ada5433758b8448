"""What the studies over several seeds share: their runs, stage by stage, and the options for that."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tsugiki.artifacts.manifest import is_finished
from tsugiki.errors import TsugikiError
from tsugiki.workflow.display import Lines
from tsugiki.workflow.graph import build_graph
from tsugiki.workflow.recipe import load_recipe
from tsugiki.workflow.running import RunOptions, run_recipe


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--next` and `--tables`."""
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--next", action="store_true", help="run the next stage that is not finished, and stop")
    only.add_argument("--tables", action="store_true", help="run nothing")


def run_next(recipe: Path, run: Path, order: Callable[[str], Any]) -> bool:
    """Run the first stage of a recipe that is not finished, in `order` of names; whether there was one."""
    graph = build_graph(load_recipe(recipe))
    names = sorted(graph.order, key=order)
    name = next((name for name in names if not is_finished(run / name)), None)
    if name is None:
        return False
    display = Lines()
    try:
        run_recipe(graph, run, RunOptions(only=name), display)
    finally:
        display.close()
    return True


def run_asked(options: argparse.Namespace, step: Callable[[], bool]) -> bool:
    """Run what the options ask for, stage by stage; whether tables are to be printed then."""
    try:
        if options.next:
            print("" if step() else "everything is finished: see --tables")
            return False
        while not options.tables and step():
            pass
    except TsugikiError as error:
        raise SystemExit(str(error)) from error
    return True
