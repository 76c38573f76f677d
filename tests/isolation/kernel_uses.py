"""What a container's root does with the kernel: real commands of a Debian root, each with what it says if it worked.

`strict` names what that profile takes away of a use, or is empty. Who runs them, and what is asserted, is in
`tests/isolation/test_kernel_is_permitted.py`; what nobody may do is in `tests.isolation.denied_calls`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Use:
    """One line of the table.

    script: for sh with -eu. says: its output, without the last newline.
    needs: a condition for sh that is false where this kernel lacks it; lacks: what is missing then.
    strict: what of it the profile `strict` refuses.
    """

    what: str
    script: str
    says: str
    strict: str = ""
    needs: str = ""
    lacks: str = ""


NO_USER_NAMESPACE = "user namespaces"
NO_NETFILTER = "packet filters"

# A child in a new namespace of the kind has another number than its parent.
DIFFERS = """
inner=$({command} readlink /proc/self/ns/{name})
test "$inner" != "$(readlink /proc/self/ns/{name})"; echo another
"""

NAMESPACES = tuple(
    Use(
        f"make a namespace: {kind}",
        DIFFERS.format(name=name, command=command),
        "another",
        strict=NO_USER_NAMESPACE if name == "user" else "",
        needs=f"test -e /proc/self/ns/{name}",
        lacks=f"the kernel has no {kind} namespaces",
    )
    for kind, name, command in (
        ("user", "user", "unshare --user --map-root-user"),
        ("mount", "mnt", "unshare --mount"),
        ("UTS", "uts", "unshare --uts"),
        ("IPC", "ipc", "unshare --ipc"),
        ("network", "net", "unshare --net"),
        ("PID", "pid", "unshare --pid --fork --mount-proc"),
        ("cgroup", "cgroup", "unshare --cgroup"),
        ("time", "time", "unshare --time --boottime 1000 --fork"),
    )
)

MOUNTS = (
    Use(
        "mount a tmpfs",
        "mkdir /mnt/one; mount -t tmpfs -o size=1m none /mnt/one; touch /mnt/one/file; findmnt -no FSTYPE /mnt/one",
        "tmpfs",
    ),
    Use(
        "mount an overlay",
        """
        cd /mnt; mkdir lower upper work merged; echo below >lower/f
        mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none merged
        cat merged/f; echo above >merged/f; cat upper/f; cat lower/f
        """,
        "below\nabove\nbelow",
    ),
    Use(
        "mount --bind, read-only",
        """
        mkdir /mnt/source /mnt/bound; mount --bind /mnt/source /mnt/bound; touch /mnt/bound/f; ls /mnt/source
        mount -o remount,bind,ro /mnt/bound; touch /mnt/bound/g 2>&1
        """.rstrip()
        + " | grep -o 'Read-only file system'",
        "f\nRead-only file system",
    ),
    Use(
        "mount the proc of a PID namespace of its own",
        "unshare --pid --fork --mount-proc sh -c 'echo $$; cat /proc/1/comm'",
        "1\nsh",
    ),
    Use(
        "pivot_root",
        """
        unshare --mount sh -eu -c '
            mkdir -p /mnt/new; mount --rbind / /mnt/new; mount -t tmpfs none /mnt/new/mnt; mkdir /mnt/new/mnt/old
            cd /mnt/new; pivot_root . mnt/old; umount -l /mnt/old; findmnt -no FSTYPE /mnt; ls /mnt/old | wc -l'
        """,
        "tmpfs\n0",
    ),
    Use(
        "chroot",
        """
        mkdir -p /mnt/jail/usr; mount --bind /usr /mnt/jail/usr
        for one in bin lib lib64; do ln -s usr/$one /mnt/jail/$one; done
        chroot /mnt/jail /bin/ls /
        """,
        "bin\nlib\nlib64\nusr",
    ),
)

USERS = (
    Use(
        "useradd, and su to the new user",
        "useradd -m -u 1234 jane; su - jane -c 'id -un; id -u; pwd'",
        "jane\n1234\n/home/jane",
    ),
    Use(
        "chown to any id of 0 to 65535",
        "touch /tmp/owned; chown 65535:4242 /tmp/owned; stat -c %u:%g /tmp/owned",
        "65535:4242",
    ),
    Use(
        "run setuid programs",
        "cp /usr/bin/id /usr/local/bin/setuid-id; chmod 4755 /usr/local/bin/setuid-id; "
        "setpriv --reuid=1000 --regid=1000 --clear-groups setuid-id -u",
        "0",
    ),
    Use(
        "setcap, and use the capability as an ordinary user",
        """
        copy=/usr/local/bin/python-of-net; cp "$(readlink -f /usr/bin/python3)" $copy
        setcap cap_net_bind_service=ep $copy
        bind='import socket; socket.socket().bind(("127.0.0.1", 81)); print("bound")'
        as_user='setpriv --reuid=1000 --regid=1000 --clear-groups'
        sysctl -qw net.ipv4.ip_unprivileged_port_start=1024
        $as_user python3 -c "$bind" 2>&1 | grep -o 'Permission denied'; $as_user python-of-net -c "$bind"
        """,
        "Permission denied\nbound",
    ),
    Use(
        "give up capabilities for good",
        "capsh --print | grep -c '^Current: =ep'; capsh --drop=cap_chown -- -c 'touch /tmp/d; chown 7 /tmp/d' 2>&1 "
        "| grep -o 'not permitted'",
        "1\nnot permitted",
    ),
    Use(
        "no_new_privs",
        "cp /usr/bin/id /usr/local/bin/plain-id; chmod 4755 /usr/local/bin/plain-id; "
        "setpriv --no-new-privs --reuid=1000 --regid=1000 --clear-groups plain-id -u",
        "1000",
    ),
    Use("keys: keyctl add and print", "keyctl print $(keyctl add user note hello @s)", "hello", strict="keyctl(2)"),
)

NETWORK = (
    Use("ping", "ping -c1 -W5 127.0.0.1 | grep -o '1 received'", "1 received"),
    Use(
        "ping as an ordinary user",
        "setpriv --reuid=1000 --regid=1000 --clear-groups ping -c1 -W5 ::1 | grep -o '1 received'",
        "1 received",
    ),
    Use(
        "look names up as an ordinary user",
        "setpriv --reuid=1000 --regid=1000 --clear-groups sh -euc 'cat /etc/resolv.conf; "
        "getent hosts $(cat /etc/hostname) | grep -o 127.0.1.1'",
        "127.0.1.1",
    ),
    Use(
        "serve on port 80",
        """python3 -c '
import socket
server = socket.create_server(("127.0.0.1", 80))
client = socket.create_connection(("127.0.0.1", 80))
server.accept()[0].sendall(b"served")
print(client.recv(9).decode())'""",
        "served",
    ),
    Use(
        "iptables in its network namespace",
        """
        send='import socket; print(socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 4711)))'
        iptables -A OUTPUT -p udp --dport 4711 -j DROP; python3 -c "$send" 2>&1 | grep -o 'Operation not permitted'
        iptables -F OUTPUT; python3 -c "$send"
        """,
        "Operation not permitted\n1",
        strict=NO_NETFILTER,
        needs="iptables -S",
        lacks="the kernel has no nf_tables",
    ),
    Use(
        "nft in its network namespace",
        "nft add table inet mine; nft add chain inet mine out; nft list tables | grep mine; nft delete table inet mine",
        "table inet mine",
        strict=NO_NETFILTER,
    ),
    Use(
        "a pair of virtual Ethernet devices into a network namespace of its own",
        """
        ip netns add inner; ip link add outside type veth peer name inside netns inner
        ip addr add 10.9.9.1/24 dev outside; ip link set outside up
        nsenter --net=/run/netns/inner sh -eu -c 'ip addr add 10.9.9.2/24 dev inside; ip link set inside up'
        ping -c1 -W5 10.9.9.2 | grep -o '1 received'; ip link del outside; ip netns del inner
        """,
        "1 received",
    ),
    Use(
        "setns into namespaces of its own",
        "touch /tmp/uts; unshare --uts=/tmp/uts hostname deep; nsenter --uts=/tmp/uts hostname; umount /tmp/uts",
        "deep",
    ),
    Use(
        "sysctl of its network",
        "sysctl -w net.ipv4.ip_forward=1; cat /proc/sys/net/ipv4/ip_forward",
        "net.ipv4.ip_forward = 1\n1",
    ),
    Use(
        "addresses and routes",
        "ip addr add 10.8.8.8/32 dev lo; ip route add 10.7.0.0/16 dev lo; ip -br addr show lo | grep -o 10.8.8.8; "
        "ip route get 10.7.1.1 | grep -o 'dev lo'",
        "10.8.8.8\ndev lo",
    ),
    Use(
        "packet sockets on its own devices",
        """python3 -c '
import socket
listener = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
listener.bind(("lo", 3))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"overheard", ("127.0.0.1", 9))
while b"overheard" not in listener.recv(99): pass
print("seen")'""",
        "seen",
        strict="packet sockets",
    ),
    Use(
        "unix sockets that pass files on",
        """python3 -c '
import os, socket
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [os.open("/etc/hostname", os.O_RDONLY)])
print(os.read(socket.recv_fds(other, 9, 9)[1][0], 99) == open("/etc/hostname", "rb").read())'""",
        "True",
    ),
)

PROCESSES = (
    Use("set its hostname", "before=$(hostname); hostname changed; uname -n; hostname $before", "changed"),
    Use(
        "strace its own processes from the start",
        "strace -f -o /tmp/trace sh -c 'true & wait'; grep -o 'exited with 0' /tmp/trace | sort -u",
        "exited with 0",
    ),
    Use(
        "strace a process that runs",
        """
        sleep 100 & traced=$!; strace -o /tmp/attached -p $traced & tracer=$!
        until test -s /tmp/attached; do kill -0 $tracer; done
        kill $traced; wait $tracer || true; tail -1 /tmp/attached
        """,
        "+++ killed by SIGTERM +++",
    ),
    Use(
        "a nested bwrap",
        "bwrap --unshare-pid --unshare-net --unshare-ipc --unshare-uts --ro-bind / / --proc /proc --dev /dev "
        "sh -c 'echo $$; touch /x' 2>&1 | grep -oE '^2$|Read-only'",
        "2\nRead-only",
    ),
    Use(
        "a nested bwrap with a user namespace",
        "bwrap --unshare-user --uid 77 --ro-bind / / id -u",
        "77",
        strict=NO_USER_NAMESPACE,
    ),
    Use(
        "set limits down",
        "sh -c 'ulimit -n 33; ulimit -n; ulimit -n 44' 2>&1 | grep -oE '^33$|not permitted'",
        "33\nnot permitted",
    ),
    Use("renice", "renice -n 5 $$ >/tmp/reniced; ps -o nice= -p $$ | tr -d ' '", "5"),
    Use(
        "choose a scheduler",
        "chrt --batch 0 chrt -p 0 | grep -o SCHED_BATCH; chrt --idle 0 chrt -p 0 | grep -o SCHED_IDLE",
        "SCHED_BATCH\nSCHED_IDLE",
    ),
    Use("priorities of input and output", "ionice -c2 -n7 ionice; ionice -c3 ionice", "best-effort: prio 7\nidle"),
    Use("choose processors", "one=$(taskset -cp $$ | grep -oE '[0-9]+$'); taskset -c $one nproc", "1"),
    Use(
        "run without address randomization",
        "setarch --addr-no-randomize cat /proc/self/personality",
        "00040000",
        strict="personality(2)",
    ),
    Use(
        "userfaultfd",
        """python3 -c '
import ctypes, os, platform
number = {"x86_64": 323, "aarch64": 282}[platform.machine()]
print(ctypes.CDLL(None, use_errno=True).syscall(number, os.O_CLOEXEC | 1) >= 0 or os.strerror(ctypes.get_errno()))'""",
        "True",
        strict="userfaultfd(2)",
        needs="test -e /proc/sys/vm/unprivileged_userfaultfd",
        lacks="the kernel has no userfaultfd",
    ),
    Use("run perl and python", "perl -e 'print 6 * 7, \"\\n\"'; python3 -c 'print(6 * 7)'", "42\n42"),
    Use("call this service", "python3 -c 'import sysproc_client; print(sysproc_client.Client().whoami().uid)'", "0"),
)

MEMORY_AND_FILES = (
    Use("named pipes: mknod p", "mknod /tmp/fifo p; echo through >/tmp/fifo & cat /tmp/fifo", "through"),
    Use(
        "inotify",
        """python3 -c '
import ctypes, os
libc = ctypes.CDLL(None)
watch = libc.inotify_init1(0)
libc.inotify_add_watch(watch, b"/tmp", 0x100)
open("/tmp/noticed", "w").close()
print(os.read(watch, 4096)[16:].rstrip(b"\\0").decode())'""",
        "noticed",
    ),
    Use(
        "memfd with seals",
        """python3 -c '
import fcntl, os
fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
try: os.write(fd, b"x")
except PermissionError: print("sealed")'""",
        "sealed",
    ),
    Use(
        "System V shared memory",
        """
        id=$(ipcmk -M 4096 | grep -oE '[0-9]+$')
        ipcs -m | grep -c " $id "; ipcrm -m $id; ipcs -m | grep -c " $id " || true
        """,
        "1\n0",
    ),
    Use(
        "POSIX message queues",
        "touch /dev/mqueue/letters; grep -oE 'QSIZE:0' /dev/mqueue/letters; rm /dev/mqueue/letters",
        "QSIZE:0",
    ),
    Use("POSIX shared memory", "echo shared >/dev/shm/one; cat /dev/shm/one; stat -fc %T /dev/shm", "shared\ntmpfs"),
    Use("pseudo terminals", "script -qc tty /tmp/typescript | grep -c '^/dev/pts/'", "1"),
    Use(
        "lock memory",
        """python3 -c '
import ctypes, mmap
page = mmap.mmap(-1, 1 << 20)
print(ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(page)), 1 << 20))'""",
        "0",
    ),
    Use(
        "extended attributes and file locks",
        """python3 -c '
import fcntl, os
file = open("/tmp/marked", "w")
os.setxattr("/tmp/marked", "user.note", b"kept")
fcntl.flock(file, fcntl.LOCK_EX)
print(os.getxattr("/tmp/marked", "user.note").decode())'""",
        "kept",
    ),
)

USES = (*NAMESPACES, *MOUNTS, *USERS, *NETWORK, *PROCESSES, *MEMORY_AND_FILES)
