"""The channels of the battery as a table: what each is, what stands in the way, how its code is shown to work.

The code of both ends is in `tests/isolation/native`, by the same names; a test holds the two lists together. The
relations in which they are tried are here, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Relation(Enum):
    """Who attempts, and at whom."""

    PARENT = "parent → child"
    CHILD = "child → parent"
    SIBLING = "sibling → sibling"
    HOST = "container → host"


class Control(Enum):
    """How the code of a channel is shown to work: both ends in one container, or where that cannot be."""

    INSIDE = "in one container"
    OPEN = "in one container without seccomp filter"
    ON_HOST = "on the host"
    FROM_HOST = "from the host"
    SUID = "in one container, mounted with suid"


@dataclass(frozen=True)
class Channel:
    """One way on which something might cross.

    wall: what is in the way. by_design: the relations in which it is open on purpose, and why. known: why Linux
    leaves it open for everybody, if it does.
    """

    name: str
    title: str
    wall: str
    control: Control = Control.INSIDE
    by_design: Mapping[Relation, str] = field(default_factory=lambda: MappingProxyType({}))
    known: str = ""


_PID, _NET, _IPC, _UTS = "PID namespace", "network namespace", "IPC namespace", "UTS namespace"
_ROOT, _USER = "own filesystem and mount namespace", "own uids, user namespace"
_OWN = "own instances of tmpfs, devpts, proc, sysfs, mqueue"
_SECCOMP, _CGROUPS, _COUNT = "seccomp", "cgroups, mounted read-only", "counted for the container's own uids"
_OPEN, _ON_HOST, _FROM_HOST = Control.OPEN, Control.ON_HOST, Control.FROM_HOST
_ANONYMOUS = (
    "All eventfds, epolls, timerfds … of the machine are one inode in the kernel, and locks belong to inodes. No "
    "namespace, no permission and no filter of system calls can tell them apart: two containers that both want to "
    "can signal each other with it, bit by bit."
)
_LIMIT = MappingProxyType({Relation.PARENT: "a container's limit holds for its whole subtree: what it uses is gone"})
_FOR_ALL = MappingProxyType({Relation.HOST: "what a process of the host opens to everybody is open to containers"})

SIGNALS = (
    Channel("kill-every-signal", "kill(2), each signal that can be handled", _PID),
    Channel("kill-sigkill", "kill(2), SIGKILL", _PID),
    Channel("kill-sigstop", "kill(2), SIGSTOP", _PID),
    Channel("kill-process-group", "kill(2) of a process group", _PID),
    Channel("kill-everyone", "kill(2) of everyone (-1)", _PID),
    Channel("tkill", "tkill(2)", _PID),
    Channel("tgkill", "tgkill(2)", _PID),
    Channel("sigqueue", "sigqueue(3)", _PID),
    Channel("rt_tgsigqueueinfo", "rt_tgsigqueueinfo(2)", _PID),
    Channel("pidfd_send_signal", "pidfd_open(2), pidfd_send_signal(2)", _PID),
    Channel("pidfd_send_signal-proc", "pidfd_send_signal(2) to a directory of /proc", _PID),
    Channel("sigio-owner", "F_SETOWN of another process, SIGIO", _PID),
    Channel("sigio-owner-group", "F_SETOWN of another process group, SIGIO", _PID),
)
PROCESSES = (
    Channel("ptrace-attach", "ptrace(2), PTRACE_ATTACH", _PID),
    Channel("ptrace-seize", "ptrace(2), PTRACE_SEIZE", _PID),
    Channel("process_vm_readv", "process_vm_readv(2)", _PID),
    Channel("process_vm_writev", "process_vm_writev(2)", _PID),
    Channel("pidfd_getfd", "pidfd_getfd(2)", _PID),
    Channel("kcmp", "kcmp(2)", _PID),
    Channel("get_robust_list", "get_robust_list(2)", _PID),
    Channel("prlimit-read", "prlimit(2), reading", _PID),
    Channel("prlimit-write", "prlimit(2), writing", _PID),
    Channel("setpriority", "setpriority(2) of a process", _PID),
    Channel("setpriority-user", "setpriority(2) of a user", _USER),
    Channel("sched_setscheduler", "sched_setscheduler(2)", _PID),
    Channel("sched_setaffinity", "sched_setaffinity(2)", _PID),
    Channel("ioprio_set", "ioprio_set(2) of a process", _PID),
    Channel("ioprio_set-user", "ioprio_set(2) of a user", _USER),
    Channel("userfaultfd", "userfaultfd(2) of another process", _PID),
)
PROCESS_FILES = (
    Channel("proc-environ", "/proc/PID/environ", _PID),
    Channel("proc-cmdline", "/proc/PID/cmdline", _PID),
    Channel("proc-exe", "/proc/PID/exe", _PID),
    Channel("proc-status", "/proc/PID/status, comm, stat", _PID),
    Channel("proc-list", "all processes below /proc", _PID),
    Channel("proc-every-file", "every file of /proc/PID and its task", _PID),
    Channel("proc-root", "/proc/PID/root", _PID),
    Channel("proc-cwd", "/proc/PID/cwd", _PID),
    Channel("proc-fd-memfd", "a memfd through /proc/PID/fd", _PID),
    Channel("proc-fd-pipe", "a pipe through /proc/PID/fd", _PID),
    Channel("proc-maps", "/proc/PID/maps", _PID),
    Channel("proc-map_files", "/proc/PID/map_files", _PID),
    Channel("proc-mem-read", "/proc/PID/mem, reading", _PID),
    Channel("proc-mem-write", "/proc/PID/mem, writing", _PID),
    Channel("proc-oom_score_adj", "/proc/PID/oom_score_adj", _PID),
)
NAMESPACES = (
    Channel("setns-uts", "setns(2), /proc/PID/ns/uts", _PID),
    Channel("setns-mnt", "setns(2), /proc/PID/ns/mnt", _PID),
    Channel("setns-net", "setns(2), /proc/PID/ns/net", _PID),
    Channel("setns-ipc", "setns(2), /proc/PID/ns/ipc", _PID),
    Channel("setns-time", "setns(2), /proc/PID/ns/time", _PID),
    Channel("setns-pidfd", "setns(2) with a pidfd", _PID),
    Channel("hostname", "sethostname(2)", _UTS),
    Channel("domainname", "setdomainname(2)", _UTS),
    Channel("sysctl-kernel-msgmax", "sysctl kernel.msgmax", _IPC),
    Channel("sysctl-net-ipv4", "sysctl net.ipv4.tcp_max_syn_backlog", _NET),
    Channel("sysctl-user-namespaces", "sysctl user.max_mnt_namespaces", _USER),
    Channel("sysctl-mqueue", "sysctl fs.mqueue.queues_max", _IPC),
)
SOCKETS = (
    Channel("unix-path-stream", "unix socket by path, stream", _ROOT),
    Channel("unix-path-dgram", "unix socket by path, datagram", _ROOT),
    Channel("unix-path-seqpacket", "unix socket by path, seqpacket", _ROOT),
    Channel("unix-path-scm_rights", "unix socket by path, SCM_RIGHTS", _ROOT),
    Channel("unix-abstract-stream", "abstract unix socket, stream", _NET),
    Channel("unix-abstract-dgram", "abstract unix socket, datagram", _NET),
    Channel("unix-abstract-seqpacket", "abstract unix socket, seqpacket", _NET),
    Channel("unix-abstract-scm_rights", "abstract unix socket, SCM_RIGHTS", _NET),
    Channel("tcp", "TCP to every address", _NET),
    Channel("mptcp", "MPTCP to every address", _NET),
    Channel("sctp", "SCTP to every address", _NET),
    Channel("dccp", "DCCP to every address", _NET),
    Channel("udp", "UDP to every address", _NET),
    Channel("udplite", "UDP-Lite to every address", _NET),
    Channel("tcp-port-taken", "a TCP port that is taken", _NET),
    Channel("icmp", "ICMP by a raw socket, to every address", _NET),
    Channel("raw-ip", "raw IP, protocol 253, to every address", _NET),
    Channel("udp-multicast", "UDP, multicast on every link", _NET),
    Channel("udp-broadcast", "UDP, broadcast on every link", _NET),
    Channel("packet-sniff", "packet socket on every link", _NET),
    Channel("vsock", "AF_VSOCK", _SECCOMP, _OPEN),
    Channel("af_alg", "AF_ALG (can be made at all)", _SECCOMP, _OPEN),
)
NETLINK = (
    Channel("netlink-uevent", "netlink, uevents as udev sends them", _NET),
    Channel("netlink-multicast", "netlink, multicast among users", _NET),
    Channel("netlink-unicast", "netlink, unicast to a port", _NET),
    Channel("netlink-route-events", "rtnetlink, events of addresses", _NET),
    Channel("netlink-link-by-pid", "rtnetlink, a link for the namespace of a pid", _PID),
    Channel("netlink-unix_diag", "sock_diag, unix sockets", _NET),
    Channel("netlink-inet_diag", "sock_diag, TCP sockets", _NET),
    Channel("netlink-proc-events", "connector, events of processes", _NET, _ON_HOST),
)
IPC = (
    Channel("sysv-queue-by-key", "System V message queue by key", _IPC),
    Channel("sysv-queue-by-id", "System V message queue by id", _IPC),
    Channel("sysv-memory-by-key", "System V shared memory by key", _IPC),
    Channel("sysv-memory-by-id", "System V shared memory by id", _IPC),
    Channel("sysv-semaphore-by-key", "System V semaphore by key", _IPC),
    Channel("sysv-semaphore-by-id", "System V semaphore by id", _IPC),
    Channel("posix-queue", "POSIX message queue", _IPC),
    Channel("posix-memory", "POSIX shared memory (/dev/shm)", _OWN),
    Channel("futex", "futex on a page of /dev/shm", _OWN),
)
FILES = (
    Channel("file-in-root", "a file in /", _ROOT),
    Channel("file-in-tmp", "a file in /tmp", _ROOT),
    Channel("file-in-run", "a file in /run", _OWN),
    Channel("fifo", "a FIFO", _ROOT),
    Channel("pts-write", "writing to another's terminal", _OWN),
    Channel("pts-tiocsti", "TIOCSTI into another's terminal", _OWN),
    Channel("open_by_handle_at", "open_by_handle_at(2) with the handle of a file", _SECCOMP, _ON_HOST),
    Channel("block-device-of-root", "a node of the device below the root filesystem", _USER, _FROM_HOST),
    Channel("flock-file", "flock(2) of a file", _ROOT),
    Channel("fcntl-lock-file", "fcntl(2) lock of a file", _ROOT),
    Channel("flock-device-nodes", "flock(2) of /dev/null and other nodes", _OWN),
    Channel("fcntl-lock-device-nodes", "fcntl(2) lock of /dev/null and other nodes", _OWN),
    Channel("flock-namespace-links", "flock(2) of /proc/self/ns/*", "a namespace of each kind"),
    Channel("flock-kernel-files", "flock(2) of files in /proc, /sys, /run", _OWN),
    Channel("flock-anonymous-inode", "flock(2) of an eventfd, epoll, timerfd …", "none", known=_ANONYMOUS),
    Channel("fcntl-lock-anonymous-inode", "fcntl(2) lock of an eventfd …", "none", known=_ANONYMOUS),
    Channel("lease", "a lease (F_SETLEASE) on a file", _ROOT),
    Channel("inotify-file", "inotify on a file", _ROOT),
    Channel("inotify-device-nodes", "inotify on /dev/null and other nodes", _OWN),
    Channel("inotify-namespace-links", "inotify on /proc/self/ns/*", "a namespace of each kind"),
    Channel("inotify-kernel-files", "inotify on files in /proc, /sys, /run", _OWN),
    Channel("fanotify-device-nodes", "fanotify on a device node", _OWN),
)
KEYRINGS = (
    Channel("key-user", "key in the user's keyring", _USER),
    Channel("key-user-session", "key in the user's session keyring", _USER),
    Channel("key-named-session", "key in a session keyring with a name", _USER),
    Channel("key-persistent", "key in the persistent keyring", _USER),
    Channel("key-by-serial", "key by its serial number", _USER),
    Channel(
        "key-by-serial-open-to-all", "key by its number, opened to all (KEYCTL_SETPERM)", _SECCOMP, by_design=_FOR_ALL
    ),
    Channel("proc-keys", "/proc/keys", _USER),
    Channel("proc-key-users", "/proc/key-users", _USER),
)
KERNEL = (
    Channel("perf_event_open", "perf_event_open(2) of a pid", _SECCOMP, _ON_HOST),
    Channel("bpf-map-by-id", "bpf(2), a map by its id", _SECCOMP, _ON_HOST),
    Channel("bpf-map-pinned", "bpf(2), a pinned map", _SECCOMP, _ON_HOST),
    Channel("io_uring", "io_uring, opening a file behind the filter", _SECCOMP, _OPEN),
    Channel("binfmt_misc", "binfmt_misc, an interpreter for others", _USER),
    Channel("kernel-log", "the kernel's log: /dev/kmsg, syslog(2)", _SECCOMP, _ON_HOST),
    Channel("debugfs-sched", "debugfs: sched/debug", _USER, _ON_HOST),
    Channel("cgroupfs", "cgroup.procs of another", _CGROUPS, _FROM_HOST),
    Channel("cgroupfs-own-mount", "cgroup.procs of another, in a mount of one's own", "cgroup namespace", _FROM_HOST),
)
COUNTERS = (
    Channel("count-inotify", "inotify instances", _COUNT),
    Channel("count-fanotify", "fanotify groups", _COUNT),
    Channel("count-mqueue-bytes", "bytes of POSIX queues", _COUNT),
    Channel("count-locked-memory", "locked memory", _COUNT),
    Channel("count-pending-signals", "pending signals", _COUNT),
    Channel("count-keys", "keys", _COUNT),
    Channel("count-fds-in-flight", "fds in flight through sockets", _COUNT),
    Channel("count-pipe-pages", "pages of pipes", _COUNT),
    Channel("count-terminals", "terminals", "devpts, with a limit for each container"),
    Channel("count-user-namespaces", "user namespaces", _COUNT),
    Channel("count-net-namespaces", "network namespaces", _COUNT),
    Channel("count-mount-namespaces", "mount namespaces", _COUNT),
    Channel("count-processes-of-user", "processes of a user (RLIMIT_NPROC)", _COUNT),
    Channel("count-processes-of-container", "processes of a container with a limit", "cgroups", by_design=_LIMIT),
    Channel("count-sysv-queues", "System V message queues", _IPC),
)
TRACES = (
    Channel("everything-in-proc-and-sys", "names of another in anything below /proc and /sys", _OWN),
    Channel("everything-in-fresh-mounts", "names of another in kernel filesystems, freshly mounted", _USER),
    Channel("proc-locks", "/proc/locks", _PID),
    Channel("proc-net-unix", "/proc/net/unix", _NET),
    Channel("proc-mountinfo", "/proc/PID/mountinfo", _PID),
)
FAMILIES: Mapping[str, tuple[Channel, ...]] = {
    "Signals": SIGNALS,
    "Calls on other processes": PROCESSES,
    "/proc of other processes": PROCESS_FILES,
    "Namespaces and what they hold": NAMESPACES,
    "Sockets": SOCKETS,
    "Netlink": NETLINK,
    "IPC": IPC,
    "Files, locks, watches": FILES,
    "Keys": KEYRINGS,
    "The kernel's own": KERNEL,
    "Exhaustion": COUNTERS,
    "Traces": TRACES,
}
CHANNELS = tuple(channel for family in FAMILIES.values() for channel in family)
