"""Keyrings: keyctl(2), as far as a container's processes need it.

Only the session keyring: the inherited one would be shared across containers (session-keyring(7)).
"""

import errno

from sysproc.linux.libc import number_of, syscall

KEYCTL_JOIN_SESSION_KEYRING = 1


def join_new_session_keyring() -> None:
    """KEYCTL_JOIN_SESSION_KEYRING: a fresh, anonymous one. Nothing happens on a kernel without keys (ENOSYS)."""
    try:
        syscall("keyctl", number_of("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    except OSError as failure:
        if failure.errno != errno.ENOSYS:
            raise
