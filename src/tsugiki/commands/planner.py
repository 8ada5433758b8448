"""`tsugiki planner`: layouts before a GPU is rented, as one group of commands."""

from __future__ import annotations

from cyclopts import App

from tsugiki.commands.planner_calibrate import calibrate, measured
from tsugiki.commands.planner_search import search
from tsugiki.commands.planner_verify import verify

app = App(name="planner", help_format="markdown")
app.default(search)
app.command(search, name="search", show=False)  # the same by a name of its own
app.command(calibrate, name="calibrate", sort_key=1)
app.command(measured, name="measured", sort_key=2)
app.command(verify, name="verify", sort_key=3)
