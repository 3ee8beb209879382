"""The command line ``sciml``: the commands, the exit codes and what errors look like.

Exit codes: 0 all is well, 1 something failed, 2 the command or the configuration is wrong, 130 stopped by
Ctrl-C. With ``SCIML_DEBUG=1`` in the environment errors keep their stack trace.
"""

import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import sciml
from sciml.cli import convert, evaluate, generate, info, invert, merge, plot, predict, pretrain, problems, train
from sciml.cli.console import is_main_process, say
from sciml.errors import SciMLError

INTERRUPTED = 130

EXAMPLES = """Examples:

  sciml train --problem cavity         the whole job; no data needed
  sciml info runs/cavity/unet/RUN      what is in a run, surrogate or data file
  sciml plot runs/cavity/unet/RUN      its pictures again
  sciml --install-completion           complete commands and options with TAB

Documentation of a command: sciml COMMAND --help"""


class Commands(TyperGroup):
    """The group of all commands. Errors that a user can mend end here as one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _fail(str(stop) or "interrupted", stop, INTERRUPTED, prefix="")
        except SciMLError as error:
            _fail(str(error), error, error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE:  # 'sciml ... | head': not an error of ours, typer ends quietly
                raise
            _fail(_system_error(error), error, 1)
        except Exception as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch.OutOfMemoryError, without importing torch
                raise
            _fail(f"the device ran out of memory; try a smaller batch_size or --device cpu ({error})", error, 1)


def _fail(text: str, error: BaseException, code: int, prefix: str = "error: ") -> None:
    if os.environ.get("SCIML_DEBUG") == "1":
        raise error
    # A fault of one process of many is said by that process: the others only see the connection close.
    who = "" if is_main_process() else f"[rank {os.environ['RANK']}] "
    say(f"{who}{prefix}{text}")
    raise typer.Exit(code) from None


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    where = f": {error.filename}" if error.filename else ""
    hints = {
        errno.ENOSPC: "; free some space or write somewhere else",
        errno.EACCES: "; write somewhere else or change the permissions",
        errno.EROFS: "; write somewhere else",
    }
    return f"{reason}{where}{hints.get(error.errno or 0, '')}"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Warnings as a line: where in the library they were raised is of no use at the command line."""
    if is_main_process():
        say(f"warning: {message}")


app = typer.Typer(
    name="sciml",
    cls=Commands,
    help="Neural PDE solvers that can be trusted: train, evaluate and use surrogates of flows.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        print(f"sciml {sciml.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (train, pretrain, generate, merge, convert, evaluate, predict, invert, plot, info, problems):
    name = command.__name__.rpartition(".")[2]
    app.command(name, epilog=command.EXAMPLES, no_args_is_help=command.NEEDS_ARGUMENTS)(getattr(command, name))


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:  # outside a command: while modules load
        say("interrupted")
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
