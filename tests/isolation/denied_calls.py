"""What nobody in a container may ask of the kernel, under the profile `default`: real calls of Python inside.

Each says what is refused, by which errno, and why it is; whether it is so is asserted in
`tests/isolation/test_kernel_is_permitted.py`. What can be done is in `tests.isolation.kernel_uses`.
"""

import os
from dataclasses import dataclass

from sysproc.isolation.syscall_numbers import AARCH64, X86_64, names, number_on


@dataclass(frozen=True)
class Denied:
    """One line of the table.

    attempt: Python statements, with `{name}` for a system call's number. errnos: it may be any of these.
    """

    what: str
    attempt: str
    errnos: tuple[str, ...]
    why: str


FILTER, OWNER, DEVICES, VIEW = (
    "seccomp: it acts on the whole host",
    "the kernel: the host's user namespace owns it",
    "no such device unless one is attached",
    "not in the container's view",
)
UNSEEN = "seccomp: no filter sees what is asked through it"
OTHER_FAMILY = "seccomp: there are unix, inet, inet6, netlink and packet"

# Name, arguments, who refuses it.
CALLS = (
    ("kexec_load", "0, 0, None, 0", FILTER),
    ("kexec_file_load", "-1, -1, 0, None, 0", FILTER),
    ("init_module", "b'', 0, b''", FILTER),
    ("finit_module", "0, b'', 0", FILTER),
    ("delete_module", "b'loop', 0", FILTER),
    ("bpf", "0, b'\\0' * 128, 128", FILTER),
    ("perf_event_open", "b'\\0' * 128, 0, -1, -1, 0", FILTER),
    ("io_uring_setup", "1, b'\\0' * 120", UNSEEN),
    ("open_by_handle_at", "-100, b'\\x08\\0\\0\\0\\x01\\0\\0\\0' + b'\\0' * 8, 0", FILTER),
    ("swapon", "b'/etc/hostname', 0", FILTER),
    ("acct", "b'/tmp/accounts'", FILTER),
    ("quotactl", "0x800007, b'/', 0, 0", FILTER),
    ("settimeofday", "b'\\1' + b'\\0' * 15, None", FILTER),
    ("clock_settime", "0, b'\\1' + b'\\0' * 15", FILTER),
    ("syslog", "3, b'\\0' * 64, 64", FILTER),
    ("ioperm", "0x80, 1, 1", FILTER),
    ("iopl", "3", FILTER),
)

FAMILIES = {"vsock": 40, "AF_ALG": 38, "Bluetooth": 31, "CAN": 29, "XDP": 44}

MOUNT = "mount(b'{source}', b'/mnt', b'{fstype}', 0, None)"

OTHERS = (
    Denied(
        "request_key with a program of the host",
        "call({request_key}, b'user', b'none', b'info', 0)",
        ("ENOKEY",),
        FILTER,
    ),
    Denied("personality of another system", "call({personality}, 6)", ("EPERM",), FILTER),
    Denied("a node of a block device", "os.mknod('/tmp/disk', 0o60666, os.makedev(7, 0))", ("EPERM",), OWNER),
    Denied("a node of a character device", "os.mknod('/tmp/mem', 0o20666, os.makedev(1, 1))", ("EPERM",), OWNER),
    Denied("mount ext4", MOUNT.format(source="/dev/loop0", fstype="ext4"), ("EPERM",), OWNER),
    Denied(
        "mount a sysfs (ip netns exec does)",
        MOUNT.format(source="none", fstype="sysfs"),
        ("EPERM",),
        "the kernel: /sys is shown in parts, since the rest tells of the host",
    ),
    Denied("mount debugfs", MOUNT.format(source="none", fstype="debugfs"), ("EPERM", "ENODEV"), OWNER),
    Denied("mount securityfs", MOUNT.format(source="none", fstype="securityfs"), ("EPERM", "ENODEV"), OWNER),
    Denied("FUSE", "os.open('/dev/fuse', os.O_RDWR)", ("ENOENT",), DEVICES),
    Denied("TUN and TAP", "os.open('/dev/net/tun', os.O_RDWR)", ("ENOENT",), DEVICES),
    Denied("KVM", "os.open('/dev/kvm', os.O_RDWR)", ("ENOENT",), DEVICES),
    Denied("loop devices", "os.open('/dev/loop-control', os.O_RDWR)", ("ENOENT",), DEVICES),
    Denied("the kernel's log", "os.open('/dev/kmsg', os.O_RDONLY)", ("ENOENT",), VIEW),
    Denied("the kernel's memory", "os.open('/proc/kcore', os.O_RDONLY)", ("EPERM", "EACCES", "ENOENT"), OWNER),
    Denied("the host's block devices in sysfs", "os.listdir('/sys/block')", ("ENOENT",), VIEW),
    Denied(
        "cgroup files",
        "os.open('/sys/fs/cgroup/cgroup.procs', os.O_WRONLY)",
        ("EROFS", "ENOENT", "EACCES"),
        "mounted read-only",
    ),
    Denied(
        "sysctl kernel.core_pattern",
        "os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)",
        ("EACCES", "EPERM"),
        OWNER,
    ),
    Denied("sysctl vm.drop_caches", "os.open('/proc/sys/vm/drop_caches', os.O_WRONLY)", ("EACCES", "EPERM"), OWNER),
    Denied("SysRq", "os.open('/proc/sysrq-trigger', os.O_WRONLY)", ("EACCES", "EPERM", "ENOENT"), OWNER),
    Denied("a priority above the usual", "os.setpriority(os.PRIO_PROCESS, 0, -5)", ("EACCES", "EPERM"), OWNER),
    Denied("real-time scheduling", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))", ("EPERM",), OWNER),
    Denied(
        "a hard limit above what it was",
        "checked(libc.setrlimit(resource.RLIMIT_MEMLOCK, b'\\0\\0\\0\\0\\0\\1\\0\\0' * 2))",
        ("EPERM",),
        OWNER,
    ),
    Denied(
        "to be spared by the OOM killer",
        "open('/proc/self/oom_score_adj', 'w', buffering=1).write('-500\\n')",
        ("EACCES", "EPERM"),
        OWNER,
    ),
)

PROGRAM = """
import ctypes, errno, os, resource, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), "")
def call(number, *arguments): checked(libc.syscall(number, *arguments))
def mount(*arguments): checked(libc.mount(*arguments))
try: exec(sys.argv[1])
except OSError as failure: print(errno.errorcode[failure.errno])
else: print("let")
"""


DENIED = (
    *(Denied(f"{name}(2)", f"call({{{name}}}, {arguments})", ("EPERM",), why) for name, arguments, why in CALLS),
    *(
        Denied(f"{name} sockets", f"socket.socket({number}, 5, 0)", ("EAFNOSUPPORT",), OTHER_FAMILY)
        for name, number in FAMILIES.items()
    ),
    *OTHERS,
)


def statements(one: Denied) -> str | None:
    """The attempt with the numbers of this machine; None if it has no such call."""
    machine = next(known for known in (X86_64, AARCH64) if known.name == os.uname().machine)
    filled = one.attempt.format_map({name: number_on(name, machine) for name in names()})
    return None if "(None," in filled else filled
