"""Which signals end a process that does not end by itself, and how long each has.

They are sent by `sysproc_client.ending` and `sysproc_client.aio.ending`.
"""

from sysproc_client._core.errors import TimedOut

SIGHUP, SIGKILL, SIGPIPE = 1, 9, 13

# One may get lost with the connection; to a terminal it goes to the foreground alone, behind which another is next.
KILLS = (SIGKILL,) * 5
HANG_UPS = (SIGHUP,) * 3 + KILLS
BROKEN_PIPES = (SIGPIPE, *KILLS)
# How long each signal has.
PAUSE_S = 1.0
# How much longer a service that is away may take to come back and be told.
AWAY_S = 10.0


def not_ended(exec_id: str) -> TimedOut:
    """The error for a process that was killed, and whose end was not seen."""
    return TimedOut(
        f"Process {exec_id} was told to end, and its end was not seen.",
        reason="NOT_ENDED",
        resolution="`sysproc ps` shows whether it is still there; a frozen container ends nothing.",
    )


def too_long(timeout: float) -> TimedOut:
    """The error for a command that was killed because of its timeout."""
    return TimedOut(f"The command was killed: it took longer than {timeout} s.", reason="COMMAND_TIMEOUT")
