"""The first module of the command: what holds before the others are loaded, which takes longest of a short call.

What the command is, is `sysproc_client.cli.main`. Nothing but the standard library's quickest is imported here.
"""

import signal
from typing import NoReturn


def main() -> NoReturn:
    """The entry point of the command. Ctrl-C while it loads ends it as it ends any program, without a traceback."""
    python_s = signal.getsignal(signal.SIGINT)
    is_heeded = python_s is signal.default_int_handler  # else it was started to ignore it
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from sysproc_client.cli.main import main as run

    if is_heeded:
        signal.signal(signal.SIGINT, python_s)
    run()
