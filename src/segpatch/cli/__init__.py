"""The `segpatch` command: each subcommand parses, calls one library function and prints.

Results go to stdout, progress to stderr. Exit codes: 0 done, 1 something the user can mend (one line), 2 usage,
130 stopped with Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import typer

from segpatch import heap
from segpatch.cli import bench, measure, models, patches, study, things, train
from segpatch.cli.examples import example
from segpatch.errors import STOPPED, BadInput, Missing, SegpatchError, of_the_disk
from segpatch.names import printable
from segpatch.processes import Processes, join, leave

SHARED = ("fit", "attack", "evaluate", "transfer")
"""The commands that several processes can share."""

app = typer.Typer(
    name="segpatch",
    help="How far do adversarial patches break real-time semantic segmentation, and do they travel?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo", epilog=example("demo"))(measure.demo)
app.add_typer(models.app, name="models")
app.add_typer(things.data_app, name="data")
app.command("fit", epilog=example("fit"))(train.fit)
app.command("attack", epilog=example("attack"))(train.attack)
app.command("evaluate", epilog=example("evaluate"))(measure.evaluate)
app.command("transfer", epilog=example("transfer"))(measure.transfer)
app.command("report", epilog=example("report"))(measure.report)
app.add_typer(patches.app, name="patch")
app.command("show", epilog=example("show"))(things.show)
app.command("bench", epilog=example("bench"))(bench.bench)
app.add_typer(study.study_app, name="study")


def main() -> None:
    """Runs the command line; SegpatchError becomes one line on stderr and exit code 1.

    Of the processes that torchrun starts, the first one prints.
    """
    heap.keep()
    try:
        processes = join()
    except SegpatchError as error:
        _say(error)
        sys.exit(1)
    if not processes.first:
        sys.stdout = io.StringIO()
    code, tell = _outcome(processes)
    if tell:
        processes.say(tell)
    else:
        leave(processes)
    if processes.world > 1:
        # A thread of gloo's that lets go of a tensor while the interpreter shuts down aborts the process: one
        # of a dozen runs on a busy machine (torch 2.13). All is written by now, so nothing needs shutting down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _outcome(processes: Processes) -> tuple[int, Callable[[], None] | None]:
    """The exit code, and what prints how it ended where something went wrong."""
    try:
        if not _is_somewhere():
            raise Missing("the folder that you are in has been removed; change to another")
        if processes.world > 1 and "".join(sys.argv[1:2]) not in SHARED:
            raise BadInput(f"one process is enough for this; several can share {', '.join(SHARED)}")
        code = app(standalone_mode=False, obj=processes) or 0  # typer turns Ctrl-C into STOPPED
        sys.stdout.flush()  # here, where a full disk is still one line
    except SegpatchError as error:
        return 1, partial(_say, error)
    except BrokenPipeError:  # whoever read the output has seen enough
        return 1, _drop_output
    except OSError as error:
        if not (said := of_the_disk(error)):
            raise
        return 1, partial(_say, said)
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except Exception as error:
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        return error.exit_code, error.show  # a usage error of the parser
    if code == STOPPED:
        line = "\nsegpatch: stopped; the same command with --resume goes on"
        return code, partial(print, line, file=sys.stderr)
    return code, None


def _is_somewhere() -> bool:
    """Whether the current folder is still there."""
    try:
        return Path.cwd().is_dir()
    except FileNotFoundError:
        return False


def _say(error: SegpatchError) -> None:
    """Prints an error as one line; it names files, which strangers may have named."""
    print(f"segpatch: {printable(str(error))}".replace("\n", "; "), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _drop_output() -> None:
    """Forgets what could not be printed, which would be tried again at the end, and fail with a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
