"""Who is at the other end of a unix socket: SO_PEER* options, PIDFD_GET_INFO, SIOCUNIXFILE.

Wrappers only: kernel names, plain values, OSError. What a peer may do is decided in `sysproc.server.peer`;
pidfds by themselves are in `sysproc.linux.pidfd`.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass

from sysproc.linux.libc import check

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77
SIOCUNIXFILE = 0x89E0

PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_PID = 1 << 0
PIDFD_INFO_CREDS = 1 << 1
PIDFD_INFO_CGROUPID = 1 << 2
PIDFD_INFO_EXIT = 1 << 3

NGROUPS_MAX = 65536
# socket.getsockopt refuses longer ones.
_PYTHON_BUFLEN_MAX = 1024

_libc = ctypes.CDLL(None, use_errno=True)

_UCRED = struct.Struct("iII")
_GID = struct.Struct("I")
# mask, cgroupid; pid, tgid, ppid; ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid; exit_code
_PIDFD_INFO = struct.Struct("QQ 3I 8I i")


@dataclass(frozen=True)
class Ucred:
    """struct ucred: pid, and the effective ids, as they were at connect(2), in the reader's namespaces."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class PidfdInfo:
    """What of struct pidfd_info the kernel has filled in; the rest is None."""

    tgid: int | None
    euid: int | None
    egid: int | None
    cgroupid: int | None
    exited: bool


def so_peercred(peer: socket.socket) -> Ucred:
    """unix(7), SO_PEERCRED. The pid may be another process's by now; 0 for one outside the pid namespace."""
    return Ucred(*_UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def so_peergroups(peer: socket.socket) -> frozenset[int]:
    """unix(7), SO_PEERGROUPS (4.13): the supplementary groups at connect(2)."""
    try:
        groups = peer.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, _PYTHON_BUFLEN_MAX)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        groups = _long_getsockopt(peer.fileno(), SO_PEERGROUPS, NGROUPS_MAX * _GID.size)
    return frozenset(gid for (gid,) in _GID.iter_unpack(groups))


def _long_getsockopt(fd: int, option: int, size: int) -> bytes:
    buffer, length = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
    check(_libc.getsockopt(fd, socket.SOL_SOCKET, option, buffer, ctypes.byref(length)), "getsockopt", option)
    return buffer.raw[: length.value]


def so_peerpidfd(peer: socket.socket) -> int:
    """unix(7), SO_PEERPIDFD (6.5): a pidfd of the process that called connect(2), close-on-exec; the caller owns it.

    ENOPROTOOPT: an older kernel. ESRCH: the peer is dead and reaped (not an error from 6.16 on).
    """
    size = struct.calcsize("i")
    (pidfd,) = struct.unpack("i", peer.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, size))
    return int(pidfd)


def pidfd_get_info(pidfd: int, mask: int) -> PidfdInfo:
    """ioctl_pidfd(2), PIDFD_GET_INFO (6.13). Of a reaped process only the cgroup, by PIDFD_INFO_EXIT (6.15).

    ENOTTY: an older kernel. ESRCH: the process is dead and reaped, and nothing was kept of it.
    """
    buffer = bytearray(_PIDFD_INFO.pack(mask, *[0] * 13))
    fcntl.ioctl(pidfd, PIDFD_GET_INFO, buffer)
    filled, cgroupid, _, tgid, _, _, _, euid, egid, *_ = _PIDFD_INFO.unpack(buffer)
    creds = bool(filled & PIDFD_INFO_CREDS)
    return PidfdInfo(
        tgid=tgid if filled & PIDFD_INFO_PID else None,
        euid=euid if creds else None,
        egid=egid if creds else None,
        cgroupid=cgroupid if filled & PIDFD_INFO_CGROUPID else None,
        exited=bool(filled & PIDFD_INFO_EXIT),
    )


def siocunixfile(sock: socket.socket) -> int:
    """unix(7), SIOCUNIXFILE (4.17): an O_PATH fd of the file that a unix socket was bound to; the caller owns it.

    ENOENT: not bound to a file. EPERM without CAP_NET_ADMIN.
    """
    return int(fcntl.ioctl(sock.fileno(), SIOCUNIXFILE))


def is_bound_to(sock: socket.socket, path: str | os.PathLike[str]) -> bool:
    """Whether connecting to this path reaches this socket: the file was neither removed nor replaced."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    file = siocunixfile(sock)
    try:
        return os.path.samestat(os.fstat(file), there)
    finally:
        os.close(file)
