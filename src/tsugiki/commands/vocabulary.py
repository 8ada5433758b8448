"""`tsugiki vocabulary`: the stage alone, and the measurement that helps to choose a size."""

from __future__ import annotations

from cyclopts import App

from tsugiki import stage_commands
from tsugiki.commands.vocabulary_measure import measure

app = App(name="vocabulary", help_format="markdown")
app.default(stage_commands.vocabulary)
app.command(  # the same by a name of its own
    stage_commands.vocabulary,
    name="extend",
    help="Extend a model's tokenizer and embeddings for a language; the same as `tsugiki vocabulary` alone.",
    show=False,
)
app.command(measure, name="measure")
