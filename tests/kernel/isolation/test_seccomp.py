"""The profiles as the kernel applies them: each filter is loaded, and the calls are made."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sysproc.isolation.seccomp_profiles import _HOST_ONLY, FAMILIES, compile_profile
from sysproc.isolation.syscall_numbers import AARCH64, LAST_REVIEWED, X86_64, number_on
from sysproc.linux import libc
from sysproc.linux.namespaces import CLONE_NEWNS, CLONE_NEWUSER, clone3, unshare
from sysproc.linux.seccomp import load_filter
from tests.compiled import compiled

pytestmark = pytest.mark.vm

MACHINE = os.uname().machine
HERE = {"x86_64": X86_64, "aarch64": AARCH64}[MACHINE]
FOREIGN_FAMILIES = {"ax25": 3, "key": 15, "can": 29, "tipc": 30, "bluetooth": 31, "alg": 38, "vsock": 40, "xdp": 44}
TOOLS = {"strace", "bwrap", "unshare", "iptables", "ip", "setarch"}
PER_SVR4, ADDR_NO_RANDOMIZE, PER_LINUX32 = 0x1, 0x0040000, 0x8
PROCESS_KEYRING, SESSION_KEYRING = -2, -3


def under(profile: str, work: Callable[[], object]) -> int:
    """Do the work in a process with this filter: 0, or the errno with which it failed."""
    program = compile_profile(profile, MACHINE)
    pid = os.fork()
    if pid == 0:
        code = 250
        try:
            load_filter(program)
            work()
            code = 0
        except OSError as failure:
            code = failure.errno or 251
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_under(profile: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program with this filter."""
    program = compile_profile(profile, MACHINE)
    return subprocess.run(
        command, preexec_fn=lambda: load_filter(program), capture_output=True, text=True, check=False, timeout=60
    )


def call(name: str, *args: object) -> int:
    number = number_on(name, HERE)
    assert number is not None
    return libc.syscall(name, number, *args)


def here(names: tuple[str, ...]) -> list[str]:
    """Those of the system calls that this architecture has."""
    return [name for name in names if number_on(name, HERE) is not None]


# -- default


@pytest.mark.parametrize("name", here(_HOST_ONLY))
@pytest.mark.parametrize("profile", ["default", "strict"])
def test_what_is_the_hosts_alone_is_refused(profile: str, name: str) -> None:
    """The same call without a filter fails otherwise, or does nothing: the arguments are no good."""
    assert under(profile, lambda: call(name, 1, 1, 1, 1, 1)) == errno.EPERM
    assert under("open", lambda: call(name, 1, 1, 1, 1, 1)) != errno.EPERM


@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_a_namespace_are_allowed(family: int) -> None:
    assert under("default", lambda: socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_DGRAM)) == 0


@pytest.mark.parametrize("family", FOREIGN_FAMILIES.values(), ids=list(FOREIGN_FAMILIES))
@pytest.mark.parametrize("high_bits", [0, 1 << 32], ids=["", "with high bits"])
def test_other_families_are_not(family: int, high_bits: int) -> None:
    """The kernel looks at 32 bits only."""
    for name, arguments in (("socket", (2, 0)), ("socketpair", (1, 0, 0))):
        assert under("default", partial(call, name, family | high_bits, *arguments)) == errno.EAFNOSUPPORT


def test_a_socket_with_high_bits_is_what_its_low_bits_say() -> None:
    assert under("default", lambda: call("socket", 1 << 32 | socket.AF_UNIX, 1, 0)) == 0


def test_nested_user_namespaces_and_clone3_are_allowed() -> None:
    assert under("default", lambda: unshare(CLONE_NEWUSER | CLONE_NEWNS)) == 0
    assert under("default", lambda: clone3(CLONE_NEWUSER)[0] or os._exit(0)) == 0


def test_keys_work() -> None:
    def use_keys() -> None:
        call("keyctl", 0, PROCESS_KEYRING, 1)
        key = call("add_key", b"user\0", b"sysproc-test\0", b"x", 1, PROCESS_KEYRING)
        assert call("request_key", b"user\0", b"sysproc-test\0", None, 0) == key

    assert under("default", use_keys) == 0


def test_a_key_is_never_asked_for_by_a_program_of_the_host() -> None:
    def ask_with_callout() -> None:
        call("add_key", b"user\0", b"sysproc-test\0", b"x", 1, PROCESS_KEYRING)
        call("request_key", b"user\0", b"sysproc-test\0", b"callout\0", 0)

    assert under("default", ask_with_callout) == errno.ENOKEY
    assert under("open", ask_with_callout) == 0


def test_only_linux_personalities() -> None:
    for allowed in (0xFFFFFFFF, 0, PER_LINUX32, ADDR_NO_RANDOMIZE, ADDR_NO_RANDOMIZE | PER_LINUX32):
        assert under("default", partial(call, "personality", allowed)) == 0
    assert under("default", lambda: call("personality", PER_SVR4)) == errno.EPERM


@pytest.mark.parametrize(
    "command",
    [
        "true",
        "strace -f -o /dev/null true",
        "bwrap --ro-bind / / --dev /dev --proc /proc --unshare-all true",
        "unshare -Urmpf --mount-proc mount -t tmpfs none /tmp",
        "unshare -Urn iptables -A OUTPUT -p tcp --dport 22 -j REJECT",
        "unshare -Urn ip link set lo up",
        "setarch -R true",
    ],
)
def test_root_inside_has_its_tools(command: str) -> None:
    for tool in TOOLS & set(command.split()):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    without = run_under("open", *command.split())
    if without.returncode:
        pytest.skip(f"does not work on this host without a filter either: {without.stderr.strip()}")
    done = run_under("default", *command.split())
    assert (done.returncode, done.stderr) == (0, without.stderr)


# -- strict


def test_strict_allows_no_nested_user_namespace() -> None:
    assert under("strict", lambda: unshare(CLONE_NEWUSER)) == errno.EPERM
    assert under("strict", lambda: call("clone", CLONE_NEWUSER | 17, 0, 0, 0, 0)) == errno.EPERM
    assert under("strict", lambda: clone3(0)) == errno.ENOSYS
    assert under("strict", lambda: unshare(CLONE_NEWNS)) == 0


def test_strict_lets_libc_make_threads_and_processes() -> None:
    code = "import threading, subprocess; t = threading.Thread(target=print, args=['x']); t.start(); t.join()"
    done = run_under("strict", sys.executable, "-c", f"{code}; subprocess.run(['true'], check=True)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


def test_strict_has_no_keys() -> None:
    for name in ("keyctl", "add_key", "request_key"):
        assert under("strict", partial(call, name, 0, 0, 0, 0, 0)) == errno.ENOSYS


def test_strict_has_no_userfaultfd() -> None:
    assert under("strict", lambda: call("userfaultfd", os.O_CLOEXEC | 1)) == errno.EPERM


def test_strict_has_no_way_to_packet_filters() -> None:
    def netlink(protocol: int) -> int:
        return under("strict", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))

    assert netlink(socket.NETLINK_ROUTE) == 0
    assert netlink(12) == errno.EPROTONOSUPPORT
    assert under("strict", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) == errno.EAFNOSUPPORT

    def set_option(level: int, option: int) -> int:
        with socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET) as sock:
            return under("strict", lambda: sock.setsockopt(level, option, 64))

    assert [set_option(0, 64), set_option(0, 96), set_option(0, 128), set_option(41, 64)] == [errno.ENOPROTOOPT] * 4
    assert [set_option(socket.SOL_SOCKET, socket.SO_KEEPALIVE), set_option(0, socket.IP_TTL)] == [0, 0]
    assert set_option(41, 67) == 0  # IPV6_TCLASS


@pytest.fixture
def terminal() -> Iterator[int]:
    primary, secondary = os.openpty()
    yield secondary
    os.close(primary)
    os.close(secondary)


def test_strict_lets_nobody_type_for_others(terminal: int) -> None:
    for request in (termios.TIOCSTI, termios.TIOCLINUX, termios.TIOCSTI | 1 << 32):
        assert under("strict", partial(call, "ioctl", terminal, request, b"x")) == errno.EPERM
    assert under("strict", lambda: fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))) == 0


def test_strict_allows_fewer_personalities() -> None:
    for allowed in (0xFFFFFFFF, 0, PER_LINUX32):
        assert under("strict", partial(call, "personality", allowed)) == 0
    assert under("strict", lambda: call("personality", ADDR_NO_RANDOMIZE)) == errno.EPERM


def test_strict_knows_no_call_that_was_not_reviewed() -> None:
    assert under("strict", lambda: libc.syscall("unknown", LAST_REVIEWED + 1)) == errno.ENOSYS


# -- open


def test_open_is_no_filter() -> None:
    def seccomp_mode() -> None:
        with open("/proc/self/status") as file:
            assert "Seccomp:\t0\n" in file.readlines()

    assert under("open", seccomp_mode) == 0


# -- other ABIs of x86


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 is an ABI of x86_64")
@pytest.mark.parametrize("profile", ["default", "strict"])
def test_x32_is_no_way_around(profile: str) -> None:
    for number in (0x40000000 | 39, 0x40000000 | 321, 0xFFFFFFFF):
        assert under(profile, partial(libc.syscall, "x32", number, 0, 0)) == errno.ENOSYS


@pytest.fixture(scope="module")
def int80() -> str:
    """A program that makes one 32-bit system call."""
    path = compiled(Path(__file__).with_name("int80.c")) if MACHINE == "x86_64" else None
    if path is None:
        pytest.skip("needs x86_64 and a C compiler")
    if subprocess.run([path, "20"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no 32-bit ABI")
    return str(path)


# getpid, signalfd (bpf's number on x86_64); and what is refused, by its number there
I386_CALLS = {
    (20,): 0,
    (321, -1, 0, 0): -errno.EINVAL,
    (128, 0, 0, 0): -errno.EPERM,
    (357, 0, 0, 0): -errno.EPERM,
    (404, 0, 0): -errno.EPERM,
    (425, 1, 0): -errno.EPERM,
    (359, 1, 2, 0): 0,
    (359, 40, 2, 0): -errno.EAFNOSUPPORT,
    (360, 40, 2, 0): -errno.EAFNOSUPPORT,
    (102, 1, 0): -errno.EAFNOSUPPORT,
    (102, 8, 0): -errno.EAFNOSUPPORT,
    (102, 5, 0): -errno.EFAULT,
}


@pytest.mark.parametrize("numbers", I386_CALLS, ids=str)
def test_the_32_bit_abi_has_its_own_table(int80: str, numbers: tuple[int, ...]) -> None:
    result = int(run_under("default", int80, *map(str, numbers)).stdout)
    assert min(result, 0) == I386_CALLS[numbers]


def test_strict_has_no_32_bit_abi(int80: str) -> None:
    assert run_under("strict", int80, "20").stdout == f"{-errno.ENOSYS}\n"
