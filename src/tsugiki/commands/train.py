"""`tsugiki train`: the stage alone, and what goes with it, as one group of commands."""

from __future__ import annotations

from cyclopts import App

from tsugiki import stage_commands
from tsugiki.commands.train_checkpoints import checkpoints, export

app = App(name="train", help_format="markdown")
app.default(stage_commands.train)
app.command(checkpoints, name="checkpoints", sort_key=1)
app.command(export, name="export", sort_key=2)
