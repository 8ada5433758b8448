"""`tsugiki corpus`: the stage alone, and what goes with it, as one group of commands."""

from __future__ import annotations

from collections.abc import Callable

from cyclopts import App

from tsugiki import stage_commands
from tsugiki.commands.corpus_classifier import train_classifier
from tsugiki.commands.corpus_export import export
from tsugiki.commands.corpus_select import select
from tsugiki.commands.corpus_show import show
from tsugiki.commands.corpus_sweep import sweep

app = App(name="corpus", help_format="markdown")
app.default(stage_commands.corpus)
_commands: tuple[Callable[..., None], ...] = (select, sweep, show, export, train_classifier)
for _number, _command in enumerate(_commands):
    app.command(_command, name=_command.__name__.replace("_", "-"), sort_key=_number)
