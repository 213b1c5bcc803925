"""The command-line app: one file per command, registered here.

Nothing heavy is imported at the top of a command's file, so that `safemix --help` is quick.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from safemix import __version__
from safemix.cli.answer import answer_command
from safemix.cli.check import check
from safemix.cli.estimate import estimate
from safemix.cli.eval import eval_command
from safemix.cli.filter import filter_command
from safemix.cli.mimic import mimic
from safemix.cli.style import style
from safemix.cli.tune import tune_command
from safemix.errors import SafemixError, SettingsError

USER_ERROR, BUG = 2, 1

app = typer.Typer(
    help="Safety-mixed fine-tuning: an exact share of safety rows in every optimizer step.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Options may be spelt --ds_config or --ds-config.
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
app.command()(estimate)
app.command()(check)
app.command()(style)
app.command()(mimic)
app.command("answer")(answer_command)
app.command("filter")(filter_command)
app.command("eval")(eval_command)
app.command("tune")(tune_command)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"safemix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", is_eager=True, callback=_print_version, help="Print the version."
    ),
    debug: bool = typer.Option(False, "--debug", help="Show a traceback when something fails."),
) -> None:
    pass


def run(args: Sequence[str]) -> int:
    """Run a command line and say its exit code.

    A user's mistake is one line on stderr and 2; anything unexpected is one line and 1. With
    `--debug`, before or after the command, both come with a traceback. Of the processes of a
    launcher one on each node tells what is wrong with the command line or the settings.
    """
    debug = "--debug" in args
    command = typer.main.get_command(app)
    try:
        # Not standalone: errors come here, and not as a framed message of several lines.
        code = command.main(_own(args), prog_name="safemix", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SafemixError as error:
        # What is set is the same for all processes of a node, so one of them tells.
        if not isinstance(error, SettingsError) or _tells():
            _say(str(error), debug)
        return USER_ERROR
    except Exception as error:
        usage = getattr(error, "format_message", None)  # a wrong option or argument
        if usage is not None:
            message = " ".join(str(usage()).split())
            if message and _tells():
                _say(f"{message.rstrip('.')}; see safemix --help", debug)
            return USER_ERROR
        where = "" if debug else " (run again with --debug)"
        _say(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}{where}", debug)
        return BUG
    return code if isinstance(code, int) else 0


def _own(args: Sequence[str]) -> list[str]:
    """The arguments without --debug, and without what the deepspeed launcher adds."""
    return [arg for arg in args if arg != "--debug" and not arg.startswith("--local_rank=")]


def _tells() -> bool:
    """Whether this process is the first of a launcher on its node, or of none."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _say(message: str, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    print(f"safemix: error: {message}", file=sys.stderr)


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
