"""The training program's command line: settings file, overrides, debug."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from safemix.errors import SettingsError
from safemix.settings import Settings, load_settings
from safemix.training.process import guarded, quiet_imports, quieten


def main(argv: Sequence[str] | None = None) -> None:
    """Run one process of a job; never returns with an error unreported."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    quieten()

    def work() -> None:
        settings = read_arguments([a for a in arguments if a != "--debug"])
        # Imported late: a mistake in the settings is told before torch is loaded.
        with quiet_imports():
            from safemix.training.run import run

        run(settings)

    guarded(work, debug=debug)


class _Parser(argparse.ArgumentParser):
    """Tells a mistake as one line, like all others, and not with the usage on every rank."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see train.py --help")


def read_arguments(arguments: Sequence[str]) -> Settings:
    """Settings from `--config FILE --key value ...`.

    Raises:
        SettingsError: naming the argument, or the file, key and value.
    """
    parser = _Parser(
        prog="train.py",
        description="Fine-tune with an exact share of safety rows in every optimizer step.",
        epilog="Any key of the settings can be given as --key value; inner keys with dots.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="settings file (YAML)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    # Launchers of DeepSpeed hand this over; the rank itself comes from the environment.
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(list(arguments))
    return load_settings(known.config, overrides(rest))


def overrides(arguments: Sequence[str]) -> list[str]:
    """`--key value`, `--key=value` and a bare `--key` (true) as `key=value`.

    Raises:
        SettingsError: for an argument that belongs to no key.
    """
    result: list[str] = []
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if not word.startswith("--") or len(word) < 3:
            raise SettingsError(f"argument {word!r} belongs to no key: write --key value")
        key, sep, value = word[2:].partition("=")
        if not sep:
            following = arguments[index + 1] if index + 1 < len(arguments) else "--"
            # A negative number is a value, another --key is not.
            if following.startswith("--"):
                value = "true"
            else:
                value = following
                index += 1
        result.append(f"{key.replace('-', '_')}={value}")
        index += 1
    return result
