"""Network interfaces without netlink: bringing `lo` up (netdevice(7)).

For the process that becomes a container's init; everything richer will use pyroute2, outside the launcher.
"""

import fcntl
import socket
import struct

SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 0x1
_IFREQ = "16sH14s"


def set_link_up(name: str) -> None:
    """SIOCSIFFLAGS with IFF_UP, in the caller's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = struct.pack(_IFREQ, name.encode(), 0, b"")
        flags = struct.unpack(_IFREQ, fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack(_IFREQ, name.encode(), flags | IFF_UP, b""))
