"""`tsugiki corpus`: the stage alone, and what goes with it, as one group of commands."""

from __future__ import annotations

from cyclopts import App

from tsugiki import stage_commands

app = App(
    name="corpus",
    help_format="markdown",
    help="""Turn a crawl into clean, deduplicated documents of one language; see and steer what was dropped.

Without one of the commands below, `tsugiki corpus OUT --source ... --language ...` makes a corpus. Its inputs are
WARC, WET, JSON lines or Parquet files: paths, globs, http(s):// and s3:// addresses, or a listing such as Common
Crawl's warc.paths.gz; values are written as in a recipe. The result is an artifact like that of a run: killed at
any moment, the same command goes on where it was.

Example: `tsugiki corpus out/japanese --source 'crawl/*.warc.gz' --language ja --heldout 0.1`""",
)
app.default(stage_commands.corpus)
for _number, _name in enumerate(("select", "sweep", "show", "export", "train-classifier")):
    _module = "classifier" if _name == "train-classifier" else _name
    app.command(f"tsugiki.commands.corpus_{_module}:{_name.replace('-', '_')}", name=_name, sort_key=_number)
