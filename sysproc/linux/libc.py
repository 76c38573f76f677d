"""The one way into libc: prototypes, the check of errno, the encoding of paths.

Families of calls live in their own modules beside this one; nothing outside `sysproc.linux` imports ctypes.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

Pathish = str | bytes | os.PathLike[str] | os.PathLike[bytes]

# Numbers from 424 on are the same on every architecture (Documentation/process/adding-syscalls.rst).
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_FSOPEN = 430
NR_FSCONFIG = 431
NR_FSMOUNT = 432
NR_FSPICK = 433
NR_CLONE3 = 435
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
_BY_MACHINE = {
    "x86_64": {"pivot_root": 155, "execveat": 322, "keyctl": 250, "seccomp": 317, "bpf": 321, "setns": 308,
               "unshare": 272, "capset": 126, "name_to_handle_at": 303, "open_by_handle_at": 304,
               "add_key": 248},
    "aarch64": {"pivot_root": 41, "execveat": 281, "keyctl": 219, "seccomp": 277, "bpf": 280, "setns": 268,
                "unshare": 97, "capset": 91, "name_to_handle_at": 264, "open_by_handle_at": 265,
                "add_key": 217},
}  # fmt: skip
_MACHINE = os.uname().machine


def number_of(name: str) -> int:
    """The number of an older system call on this machine; OSError(ENOSYS) where it is not known."""
    try:
        return _BY_MACHINE[_MACHINE][name]
    except KeyError:
        raise OSError(38, f"{name} is not known on {_MACHINE}") from None


def encode(path: Pathish) -> bytes:
    """A path as the kernel takes it. ValueError for NUL, at which ctypes would cut silently."""
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError(f"NUL in path {raw!r}")
    return raw


def check(result: int, call: str, target: object = "") -> int:
    """The result, or OSError with errno and `call target` as its filename."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"{call} {target}".strip())
    return result


def syscall(call: str, number: int, *args: object, target: object = "") -> int:
    """Make a system call by number; ints are passed as 64 bits, bytes and ctypes values as they are."""
    wide = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return check(_syscall(ctypes.c_long(number), *wide), call, target)


def buffer(size_or_data: int | bytes) -> "ctypes.Array[ctypes.c_char]":
    """Memory for the kernel to read or fill."""
    return (
        ctypes.create_string_buffer(size_or_data)
        if isinstance(size_or_data, int)
        else (ctypes.create_string_buffer(size_or_data, len(size_or_data)))
    )


def address(memory: object) -> int:
    """The address of ctypes memory, for pointers inside structures."""
    return ctypes.addressof(memory)  # type: ignore[arg-type]  # any ctypes value has an address
