"""Known escapes of others, tried here: each is the code of then against a real container, and shows what stops it.

The docstrings are the table of docs/ISOLATION.md: what it was, after `Here:` what stops it. What runs inside is
`escapes.c` beside this, and busybox; channels that nobody ever used are in the other files of `tests/isolation`.
"""

import errno
import fcntl
import hashlib
import inspect
import io
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from sysproc.isolation.native import program_path
from sysproc_client import Client, Container, SysprocError
from tests.compiled import compiled
from tests.e2e.daemon import RunningDaemon
from tests.isolation.attacks import attack, image_with, init_of, put, sh, told
from tests.isolation.page import row_of, table, write_section

pytestmark = pytest.mark.vm

F_GET_SEALS, ALL_SEALS = 1034, 0xF
# They take any parameter, and keep none.
IGNORING = frozenset({"bpf", "debugfs", "pstore", "ramfs", "tracefs"})

Imported = Callable[[Mapping[str, str]], Container]


# -- what is in the page


@pytest.fixture(autouse=True, scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[set[str]]:
    """When every test of this module has run and none failed, the page says so."""
    before = request.session.testsfailed
    run: set[str] = set()
    yield run
    tests = {name: test for name, test in vars(sys.modules[__name__]).items() if name.startswith("test_")}
    if run == set(tests) and request.session.testsfailed == before:
        rows = [row_of(inspect.getdoc(test) or "") for test in tests.values()]
        write_section("known escapes", table(("what it was", "what stops it here"), rows))


@pytest.fixture(autouse=True)
def noted(request: pytest.FixtureRequest, page: set[str]) -> None:
    """This test is run."""
    page.add(request.node.originalname)


# -- containers


@pytest.fixture(scope="module")
def program() -> bytes:
    """The compiled attacks."""
    program = compiled(Path(__file__).with_name("escapes.c"))
    if program is None:
        pytest.skip("no C compiler here")
    return program.read_bytes()


@pytest.fixture
def box(client: Client, program: bytes) -> Iterator[Container]:
    """A container with the attacks in it."""
    box = client.create(image="busybox")
    put(box, "/escapes", program)
    yield box
    box.destroy()


@pytest.fixture
def imported(client: Client) -> Iterator[Imported]:
    """A container of an image with busybox and these links; both are gone afterwards."""
    boxes: list[Container] = []

    def make(links: Mapping[str, str]) -> Container:
        client.images.import_("hostile", io.BytesIO(image_with(links)))
        boxes.append(client.create(image="hostile", size="64M"))
        return boxes[0]

    yield make
    for box in boxes:
        box.destroy()
    client.images.delete("hostile")


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host in which nothing changes, and whose contents nobody inside sees."""
    (tmp_path / "secret").write_text("of the host")
    tmp_path.chmod(0o777)
    yield tmp_path
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("secret", "of the host")]


# -- getting at what enters


@pytest.mark.skipif(
    Path("/proc/sys/fs/suid_dumpable").read_text().strip() == "1", reason="fs.suid_dumpable is 1: ptrace is unchecked"
)
def test_root_inside_cannot_get_at_a_process_before_its_execve(box: Container) -> None:
    """CVE-2016-9962 (runc), CVE-2016-8649 (LXC): who entered could be traced before its execve, with fds of the host.

    Here: until execve it is not dumpable, so that only the host's root could; and no fd but 0 to 2 is left by then.
    """
    stalker = box.exec(["/escapes", "stalk"], stdin=False)
    output = iter(stalker)
    said = next(output).data
    assert said == b"ready\n"
    slow = {"PATH": "/nowhere:" * 14000 + "/bin"}
    for number in range(30):
        assert box.run(["true"], env=slow if number % 2 else None).exit_code == 0
    sh(box, "touch /stop")
    found = told(b"".join(chunk.data for chunk in output))
    assert found["refused", "before execve"] > 0 and found["let", "after execve"] > 0
    assert (found["memory", "before execve"], found["files", "before execve"]) == (0, 0)
    assert found["ptrace", "before execve"] == 0


def test_the_program_of_the_service_cannot_be_overwritten(box: Container) -> None:
    """CVE-2019-5736 (runc): /proc/self/exe of who entered was the host's program, and could be written to.

    Here: /proc/1/exe and /proc/self/exe are a sealed memfd; run by `#!`, it is a program like any other inside.
    """
    host = program_path().read_bytes()
    found = attack(box, "overwrite", "/proc/1/exe")
    assert {what for (what, _), number in found.items() if number == 0} <= {"open for reading", "through a pipe"}
    init = os.open(f"/proc/{init_of(box)}/exe", os.O_RDONLY)
    assert fcntl.fcntl(init, F_GET_SEALS) & ALL_SEALS == ALL_SEALS
    os.close(init)
    for number, first_line in enumerate(("", " exec", " keep", " init")):
        put(box, f"/evil{number}", f"#!/proc/self/exe{first_line}\n".encode())
        assert box.run([f"/evil{number}"]).exit_code in (1, 2)
    sh(box, "ln -s /proc/self/exe /link")
    assert box.run(["/link"]).exit_code == 2
    digest = hashlib.sha256(host).hexdigest()
    assert sh(box, "sha256sum /proc/1/exe").split()[0] == digest
    assert program_path().read_bytes() == host


def test_a_file_that_may_only_be_read_is_not_overwritten_through_a_pipe(box: Container) -> None:
    """CVE-2022-0847 (Linux, Dirty Pipe): splice put pages of any readable file into a pipe that was then written to.

    Here: the kernel has it fixed since 5.16.11, and 6.1 is the oldest that we take; roots share no pages of cache.
    """
    sh(box, "echo untouched, and longer than what is written >/readable; chmod 444 /readable")
    before = sh(box, "sha256sum /readable /proc/1/exe")
    for path, user in (("/readable", 1000), ("/proc/1/exe", 0)):
        assert attack(box, "overwrite", path, user=user)["through a pipe", path] == 0  # into the pipe, it was let
    assert sh(box, "sha256sum /readable /proc/1/exe") == before


def test_no_working_directory_leads_out(box: Container, sentinel: Path) -> None:
    """CVE-2024-21626 (runc, Leaky Vessels): an fd of the host's was left, and /proc/self/fd/7 the working directory.

    Here: all fds are closed before the working directory is entered, which is looked up inside, as the user.
    """
    top = sh(box, "stat -c %d:%i /")
    links = [f"/proc/self/fd/{number}" for number in range(16)]
    for directory in [
        *links,
        "/proc/1/cwd",
        "/proc/1/root/..",
        "/proc/self/root/../..",
        f"/proc/self/cwd/..{sentinel}",
    ]:
        result = box.run(["sh", "-c", "cd ../../../../../../..; stat -c %d:%i ."], cwd=directory)
        assert result.exit_code == 126 or result.stdout.decode().strip() == top, directory
    assert sh(box, "ls /proc/1/fd").split() == ["0", "1", "2"]
    assert sh(box, "set -- /proc/self/fd/*; echo $#") == "4"  # the fourth is that of the shell's own directory listing


def test_what_enters_brings_no_inheritable_capabilities(box: Container) -> None:
    """CVE-2022-24769 (Docker, containerd, Podman): processes began with inheritable capabilities, which files add to.

    Here: inheritable and ambient sets are empty, for root and others; others have no capability at all.
    """
    for user in (0, 1000):
        lines = sh(box, "grep Cap /proc/self/status", user=user).splitlines()
        sets = {line.split(":")[0]: int(line.split()[1], 16) for line in lines}
        assert (sets["CapInh"], sets["CapAmb"]) == (0, 0)
        assert bool(sets["CapPrm"]) == bool(sets["CapEff"]) == (user == 0)


def test_a_name_of_digits_is_nobody_elses_number(box: Container) -> None:
    """CVE-2016-3697 (Docker): a user named "1000" in the image's /etc/passwd, whose uid was 0, was taken for uid 1000.

    Here: users are numbers only; of /etc/passwd the third field counts, and what is not 0 to 65535 is no number.
    """
    lines = ("1000:x:0:0::/root:/bin/sh", "x:x:4294968296:0::/root:/bin/sh", "root:x:0:0::/root:/bin/sh")
    sh(box, "cat >/etc/passwd", input="\n".join(lines).encode())
    assert sh(box, "id -u; id -g; echo $HOME", user=1000).split() == [
        "1000",
        "1000",
        "/",
    ]


# -- what is opened or written on the way in


def test_a_null_device_that_is_none_is_not_opened(box: Container) -> None:
    """CVE-2025-31133 (runc): /dev/null became a link, and what it led to was mounted over the paths to be masked.

    Here: nothing of the image's /dev is used; a process whose /dev/null is something else gets an input at its end.
    """
    sh(box, "echo input >/target")
    for trick in ("ln -s /target", "ln -s /proc/sysrq-trigger", "mkfifo", "cp /target"):
        sh(box, f"rm -f /dev/null; {trick} /dev/null")
        assert sh(box, "wc -c; stat -Lc %F /proc/self/fd/0") == "0\nfifo"
    assert sh(box, "cat /target") == "input"


def test_an_image_with_links_in_dev_gets_a_dev_of_the_host(imported: Imported, sentinel: Path) -> None:
    """CVE-2025-31133 (runc), from the image: its /dev/null, /dev/ptmx, /dev/pts are links.

    Here: /dev is a tmpfs over whatever the image has there, made by the host with nodes of its own.
    """
    names = ("null", "zero", "ptmx", "console", "tty", "fd")
    box = imported({f"dev/{name}": str(sentinel / "secret") for name in names})
    assert sh(box, "busybox stat -c %F:%t:%T /dev/null; busybox stat -c %N /dev/ptmx").splitlines() == [
        "character special file:1:3",
        "'/dev/ptmx' -> 'pts/ptmx'",
    ]


@pytest.mark.parametrize("trick", ["ln -s /target", "ln -s /proc/sysrq-trigger", "mkfifo", "cp /target"])
def test_a_terminal_that_is_none_is_refused(box: Container, trick: str) -> None:
    """CVE-2025-52565 (runc): /dev/pts/N became a link before it was mounted on /dev/console.

    Here: nothing is mounted; the terminal is opened without links, and has to be ptmx on a devpts, else it is refused.
    """
    sh(box, f"echo untouched >/target; mount -t tmpfs none /dev/pts; {trick} /dev/pts/ptmx")
    ended = box.exec(["true"], tty=(24, 80)).wait()
    assert (ended.exit_code, ended.failure != "") == (126, True)
    assert sh(box, "cat /target; umount /dev/pts") == "untouched"
    assert box.exec(["true"], tty=(24, 80)).wait().exit_code == 0


def test_nothing_is_written_to_a_proc_that_is_none(box: Container) -> None:
    """CVE-2025-52881 (runc): what was written to /proc, for labels and limits, went where the container had put links.

    Here: what is written to /proc is written before the process enters, to the host's; afterwards /proc is not used.
    """
    files = "oom_score_adj attr/exec attr/keycreate uid_map gid_map setgroups cgroup environ"
    sh(box, f"mount -t tmpfs none /proc; mkdir -p /proc/self/attr; cd /proc/self; for f in {files}; do : >$f; done")
    sh(box, "mkdir -p /proc/thread-self/attr; ln -s /etc/passwd /proc/thread-self/oom_score_adj")
    before = sh(box, "find /proc /etc -type f | sort | xargs md5sum")
    for user in (0, 1000):
        assert box.run(["true"], user=user).exit_code == 0
        assert box.exec(["true"], user=user, tty=(24, 80)).wait().exit_code == 0
    assert sh(box, "find /proc /etc -type f | sort | xargs md5sum") == before
    assert [one.pid for one in box.ps()] == [1]


def test_nothing_of_the_image_is_loaded_by_who_enters(client: Client, debian: str, tmp_path: Path) -> None:
    """CVE-2019-14271 (docker cp): libnss of the image was loaded by a process of the host's that had entered.

    Here: who enters is one static program without libc, which reads /etc/passwd itself and loads nothing.
    """
    library = compile_c(tmp_path / "library.so", LIBRARY, "-shared", "-fPIC")
    probe = compile_c(tmp_path / "probe", PROBE, "-static")
    box = client.create(image=debian)
    put(box, "/probe", probe)
    put(box, "/library.so", library)
    sh(box, "for one in files compat dns; do cp /library.so /usr/lib/libnss_$one.so.2; done")
    sh(box, "echo /library.so >/etc/ld.so.preload; rm -f /loaded")
    for user in (0, 0, 1000, 0):
        assert box.run(["/probe"], user=user).exit_code == 0
    assert box.run(["/bin/true"]).exit_code == 0  # the control: a program with libc loads it
    assert box.run(["/probe"]).exit_code == 1
    box.destroy()


LIBRARY = '#include <fcntl.h>\n__attribute__((constructor)) void loaded(void) { creat("/loaded", 0666); }\n'
PROBE = '#include <unistd.h>\nint main(void) { return access("/loaded", F_OK) == 0; }\n'


def compile_c(target: Path, text: str, *options: str) -> bytes:
    """A program or library of a few lines."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler here")
    command = ["gcc", *options, "-o", str(target), "-x", "c", "-"]
    subprocess.run(command, input=text.encode(), check=True)
    return target.read_bytes()


# -- links that lead the service astray


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "run"])
def test_an_image_with_a_link_where_something_is_mounted_does_not_start(
    client: Client, sentinel: Path, name: str
) -> None:
    """CVE-2021-30465, CVE-2019-19921, CVE-2023-27561 (runc): mounts followed links of the image.

    Here: mounts are at fixed places, attached without following any link, before anything of the image runs.
    """
    client.images.import_("astray", io.BytesIO(image_with({name: str(sentinel)})))
    with pytest.raises(SysprocError, match=f"/{name}"):
        client.create(image="astray", size="64M")
    client.images.delete("astray")
    assert str(sentinel) not in Path("/proc/self/mountinfo").read_text()
    assert client.list() == []


def test_files_that_the_service_adds_are_not_written_through_links(imported: Imported, sentinel: Path) -> None:
    """CVE-2018-15664 (Docker): a path was resolved inside, then used outside, where a link was put in between.

    Here: what is added to a root, or unpacked, is written by a process that has no other root; links lead to inside.
    """
    secret = str(sentinel / "secret")
    box = imported({"etc/hosts": secret, "etc/hostname": secret, "etc/resolv.conf": "../../../../.." + secret})
    assert sh(box, "ls /") != ""
    assert box.run(["cat", "/etc/hosts"]).exit_code != 0
    box.stop()
    box.start()
    assert sh(box, "busybox hostname") != ""


def test_destroying_follows_no_link(client: Client, box: Container, sentinel: Path) -> None:
    """CVE-2024-23652 (BuildKit): cleaning up after a container removed what its links led to.

    Here: nothing walks through a root from outside; it is one file, which is unlinked.
    """
    child = client.create(image="busybox", parent=box)
    sh(child, f"ln -s {sentinel} /link; rm -rf /var /home; ln -s {sentinel} /var; ln -s {sentinel}/secret /home")
    child.stop(grace=0)
    child.destroy()


def test_files_of_containers_are_out_of_reach_on_the_host(box: Container, daemon: RunningDaemon) -> None:
    """CVE-2021-41091 (Docker): users of the host ran setuid programs in the directories of containers.

    Here: a root is a file of mode 0600 in a directory of mode 0700, mounted where no other process sees it.
    """
    sh(box, "cp /bin/busybox /setuid-of-ours; chmod 4755 /setuid-of-ours")
    assert stat.S_IMODE(daemon.state_dir.stat().st_mode) == 0o700
    files = [path for path in daemon.state_dir.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if path.stat().st_mode & 0o6077] == []
    assert "setuid-of-ours" not in {name for _, _, names in os.walk(daemon.directory) for name in names}
    assert str(daemon.state_dir) not in Path("/proc/self/mountinfo").read_text()


# -- what the service runs, and where it listens


def test_looking_at_a_container_runs_nothing_of_it(box: Container) -> None:
    """CVE-2022-1227 (podman top): the container's own nsenter was run, with the rights of who looked.

    Here: processes are read from the host's /proc; nothing is run.
    """
    for name in ("ps", "nsenter", "ls"):
        sh(box, f"rm -f /bin/{name}")
        put(box, f"/bin/{name}", b"#!/bin/sh\ntouch /was-run\n")
    assert [one.pid for one in box.ps()] == [1]
    assert sh(box, "test -e /was-run || echo never; /bin/ps; test -e /was-run && echo once") == "never\nonce"


def test_an_environment_for_the_container_is_not_that_of_the_service(client: Client, daemon: RunningDaemon) -> None:
    """CVE-2025-23266 (NVIDIA Container Toolkit): LD_PRELOAD of the image was in the environment of a hook on the host.

    Here: there are no hooks, and the environment asked for is given to execve of the container's process alone.
    """
    box = client.create(image="busybox", env={"LD_PRELOAD": "/evil.so"})
    with box.exec(["cat"], env={"LD_AUDIT": "/evil.so"}) as process:
        process.stdin.write(b"x")
        assert next(iter(process)).data == b"x"
        mine = [pid for pid in os.listdir("/proc") if pid.isdigit() and belongs_to(pid, daemon, box)]
        assert len(mine) >= 4  # sysprocd, launcher, keeper, supervisor
        assert [pid for pid in mine if b"evil.so" in Path(f"/proc/{pid}/environ").read_bytes()] == []
    assert sh(box, "echo $LD_PRELOAD") == "/evil.so"
    box.destroy()


def belongs_to(pid: str, daemon: RunningDaemon, box: Container) -> bool:
    """Whether a process is one of the service's own, for this container: below the daemon or the launcher."""
    tops = {daemon.pid, daemon.launcher_pid}
    inside = {one.host_pid for one in box.ps()}
    above = int(pid)
    while above > 1 and above not in tops:
        above = parent_of(above)
    return above in tops and int(pid) not in inside


def parent_of(pid: int) -> int:
    """From /proc; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def test_no_abstract_socket_of_the_host_is_reached(box: Container) -> None:
    """CVE-2020-15257 (containerd): the shim listened on an abstract socket, which is of the network namespace only.

    Here: a container always has a network namespace of its own; and what the service listens on has a path.
    """
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0of-the-host")
        server.listen()
        lines = (line.split() for line in Path("/proc/net/unix").read_text().splitlines())
        names = {words[7] for words in lines if len(words) > 7 and words[7].startswith("@")}
        assert "@of-the-host" in names
        found = attack(box, "connect", input="".join(f"{name[1:].encode().hex()}\n" for name in sorted(names)).encode())
    assert set(found.values()) == {errno.ECONNREFUSED}
    assert sh(box, "grep -c @ /proc/net/unix || true") == "0"


# -- the kernel


def test_no_program_of_the_host_is_named_in_a_hierarchy(box: Container) -> None:
    """CVE-2022-0492 (Linux): whoever could mount a cgroup hierarchy wrote a program's path to its release_agent.

    Here: release_agent is in the root of a hierarchy only, which a cgroup namespace does not show; what is mounted
    there already is read-only; the kernel asks for the host's root since 5.17.
    """
    found = attack(box, "release-agent")
    agents = {key: number for key, number in found.items() if "agent" in key[0]}
    assert agents and 0 not in agents.values(), agents


def test_a_filesystem_takes_no_more_parameters_than_fit(box: Container) -> None:
    """CVE-2022-0185 (Linux): fsconfig wrote beyond a page when the parameters of a filesystem were about as long.

    Here: the kernel has it fixed since 5.16.2, and 6.1 is the oldest that we take.
    """
    found = attack(box, "fsconfig")
    assert found["tmpfs", "bytes"] == 0  # it knows no such parameter
    assert {fstype: size for (fstype, _), size in found.items() if size > 4096 and fstype not in IGNORING} == {}


def test_no_file_of_the_host_is_opened_by_its_number(box: Container) -> None:
    """Shocker (Docker before 1.0): open_by_handle_at with the number of the host's root directory.

    Here: seccomp refuses the call; the kernel asks for the host's root, or (6.11) for a mount of the container's own.
    """
    assert attack(box, "handles") == {("refused", "4095 numbers"): errno.EPERM}
