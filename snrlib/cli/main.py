"""The ``snr`` command: the groups of subcommands, and what becomes of their errors."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from io import TextIOWrapper

from snrlib.cli import compare, data, explore, notebooks, study, teach, train
from snrlib.notebooks.run import NotebookError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: 0 done, 1 a notebook or a training failed, memory ran out or a data set is damaged, 2 refused
        or not writable, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    for chatty in ("asyncio", "papermill"):  # on a kernel that was stopped; errors arrive as exceptions
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # which, as a file on Windows, may not take all characters
            stream.reconfigure(errors="replace")
    ends = [signal.SIGTERM]
    if sys.platform != "win32":
        ends.append(signal.SIGHUP)
    for number in ends:  # so that a terminated run cleans up behind itself
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        return options.do(options)
    except (NotebookError, FloatingPointError, ChildProcessError) as error:  # of a cell, a training, one of many
        print(f"snr: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `snr list | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"snr: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError, ImportError) as error:
        if isinstance(error, ImportError) and "pip install" in str(error):  # an extra, which the message names
            print(f"snr: {error}", file=sys.stderr)
            return 2
        if not _is_want_of_memory(error):
            raise
        last = str(error).strip().splitlines()[-1:] or ["nothing more is known"]
        print(
            f"snr: there is not enough memory ({last[0]}); what was finished is kept. Smaller batches, "
            "or fewer processes at a time, need less",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("\nsnr: interrupted; what was finished is kept, nothing half-written is left", file=sys.stderr)
        return 130


def _is_want_of_memory(error: Exception) -> bool:
    """Torch says so in a RuntimeError, of a processor or of a GPU; a library that finds no room is an ImportError."""
    signs = ("allocate memory", "out of memory", "could not create a primitive", "failed to map segment")
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in signs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="snr", description="Run the study's notebooks with parameters.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (notebooks, study, train, explore, compare, teach, data):  # in this order `snr --help` lists them
        group.add_commands(commands)
    return parser
