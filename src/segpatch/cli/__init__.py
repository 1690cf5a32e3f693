"""The `segpatch` command: each subcommand parses, calls one library function and prints.

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 something the user can mend (one line), 2 usage,
130 stopped with Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from segpatch.cli import bench, measure, models, things, train
from segpatch.errors import SegpatchError

STOPPED = 130

app = typer.Typer(
    name="segpatch",
    help="How far do adversarial patches break real-time semantic segmentation, and do they travel?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(measure.demo)
app.add_typer(models.app, name="models")
app.add_typer(things.data_app, name="data")
app.command("fit")(train.fit)
app.command("attack")(train.attack)
app.command("evaluate")(measure.evaluate)
app.command("transfer")(measure.transfer)
app.command("report")(measure.report)
app.add_typer(things.patch_app, name="patch")
app.command("show")(things.show)
app.command("bench")(bench.bench)


def main() -> None:
    """Runs the command line; SegpatchError becomes one line on stderr and exit code 1."""
    try:
        code = app(standalone_mode=False) or 0  # typer turns Ctrl-C into STOPPED
    except SegpatchError as error:
        print(f"segpatch: {error}", file=sys.stderr)
        sys.exit(1)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()  # a usage error of the parser
        code = error.exit_code
    if code == STOPPED:
        print("\nsegpatch: stopped; the same command with --resume goes on", file=sys.stderr)
    sys.exit(code)
