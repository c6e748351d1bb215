"""Where the process begins."""

import signal
import sys


def run() -> None:
    """Run the command line; until it has a handler of its own, Ctrl-C ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from minqa.app.cli import main

    sys.exit(main())
