"""``python -m fastml [tour|info|warmup]``."""

import argparse
import os
import sys

from fastml import __version__
from fastml._cli import CommandError

_DESCRIPTION = """\
tour    train a classifier on real data, time a kernel beside NumPy, save the loss curve (the default)
info    print versions, processor, threads and the folder of compiled kernels
warmup  compile the common kernels now, so that no fit has to wait for it"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message):
        raise CommandError(f"{message} (python -m fastml --help shows what there is)")


def _parse(arguments):
    parser = _Parser("python -m fastml", description=_DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("command", nargs="?", default="tour", choices=["tour", "info", "warmup"])
    parser.add_argument("--version", action="version", version=f"fastml {__version__}")
    tour = parser.add_argument_group("options of the tour")
    tour.add_argument("--fashion-mnist", metavar="FOLDER", help="learn from the four idx files there, not from digits")
    tour.add_argument("--output", metavar="PATH", help="where to save the picture (default: fastml_loss_curve.png)")
    options = parser.parse_args(arguments)
    if options.command != "tour" and (options.output is not None or options.fashion_mnist is not None):
        parser.error(f"{options.command} takes no options")
    return options


def _run(arguments):
    options = _parse(arguments)
    if options.command == "info":
        from fastml import show_versions

        show_versions()
    elif options.command == "warmup":
        from fastml._cli.warmup import run_warmup

        run_warmup()
    else:
        from fastml._cli.tour import run_tour

        run_tour(options.output or "fastml_loss_curve.png", options.fashion_mnist)
    sys.stdout.flush()


def main(arguments=None):
    """Run a command; the exit code is 0, or 2 where the user has something to put right, or 130 after Ctrl-C."""
    try:
        _run(arguments)
    except CommandError as error:
        print(f"fastml: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nfastml: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # nobody reads any more, as in ``python -m fastml | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
