"""Keyrings: keyctl(2) and add_key(2), as far as a container's processes and dm-crypt need them.

A session keyring that is inherited would be shared across containers (session-keyring(7)). Which keys dm-crypt takes
is in `sysproc.linux.device_mapper`.
"""

import ctypes
import errno

from sysproc.linux.libc import encode, number_of, syscall

KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_UNLINK = 1, 9
KEY_SPEC_THREAD_KEYRING, KEY_SPEC_PROCESS_KEYRING = -1, -2


def join_new_session_keyring() -> None:
    """KEYCTL_JOIN_SESSION_KEYRING: a fresh, anonymous one. Nothing happens on a kernel without keys (ENOSYS)."""
    try:
        syscall("keyctl", number_of("keyctl"), KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    except OSError as failure:
        if failure.errno != errno.ENOSYS:
            raise


def add_key(kind: str, description: str, payload: memoryview, keyring: int) -> int:
    """add_key(2): the key's number. The payload of a "logon" key is never shown to anybody again."""
    size = len(payload)
    memory = (ctypes.c_char * size).from_buffer(payload)
    return syscall("add_key", number_of("add_key"), encode(kind), encode(description), memory, size, keyring)


def unlink_key(key: int, keyring: int) -> None:
    """KEYCTL_UNLINK: the keyring holds it no longer; the kernel wipes it with its last use."""
    syscall("keyctl", number_of("keyctl"), KEYCTL_UNLINK, key, keyring, 0, 0)
