"""Processes in containers: output, input, exit codes, terminals, signals, bounds, resumption."""

import os
import signal
import threading

import pytest

from sysproc_client import Client, Container, InvalidArgument, NotFound, TimedOut
from tests.e2e.daemon import RunningDaemon
from tests.waiting import wait_until


@pytest.fixture
def box(client: Client) -> Container:
    return client.create()


@pytest.mark.vm
def test_output_and_exit_code_come_back(box: Container) -> None:
    result = box.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.signal, result.stdout, result.stderr) == (3, None, b"out\n", b"err\n")


def test_input_goes_in_whole_and_binary(box: Container) -> None:
    data = os.urandom(3 << 20)
    assert box.run(["cat"], input=data).stdout == data


def test_a_signal_is_told_as_one(box: Container) -> None:
    assert box.run(["sh", "-c", "kill -TERM $$"]).signal == signal.SIGTERM


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nosuch"], 127, "nosuch"),
        (["/no/such/file"], 127, "/no/such/file"),
        (["/etc/passwd"], 126, "/etc/passwd"),
        (["/tmp"], 126, "/tmp"),
    ],
)
def test_what_cannot_be_started_says_so_like_a_shell(box: Container, argv: list[str], code: int, words: str) -> None:
    result = box.run(argv)
    assert result.exit_code == code
    assert words in result.failure


def test_a_program_for_another_machine_names_both(box: Container) -> None:
    header = bytearray(64)
    header[:20] = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + b"\xf3\x00"  # RISC-V
    box.run(["sh", "-c", "cat > /foreign; chmod +x /foreign"], input=bytes(header))
    result = box.run(["/foreign"])
    assert result.exit_code == 126
    assert "RISC-V" in result.failure and os.uname().machine.replace("_", "-")[:3] in result.failure.replace("_", "-")


def test_environment_directory_and_user_are_those_asked_for(client: Client) -> None:
    box = client.create(env={"A": "container", "B": "container"})
    script = "echo $A $B; pwd; id -u; id -g"
    result = box.run(["sh", "-c", script], env={"B": "exec"}, cwd="/tmp", user=(1000, 1001))
    assert result.stdout.decode().split("\n")[:4] == ["container exec", "/tmp", "1000", "1001"]


def test_a_missing_directory_is_an_error_of_the_start(box: Container) -> None:
    result = box.run(["true"], cwd="/no/such/dir")
    assert result.exit_code == 126 or result.exit_code == 127
    assert "/no/such/dir" in result.failure


def test_a_terminal_is_one(box: Container) -> None:
    process = box.exec(["sh", "-c", "test -t 0 && test -t 1 && stty size && tty"], tty=(40, 100))
    output = b"".join(chunk.data for chunk in process)
    assert b"40 100" in output and b"/dev/pts/" in output


def test_a_resized_terminal_tells_its_process(box: Container) -> None:
    process = box.exec(
        ["sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"], tty=(24, 80)
    )
    output = b""
    for chunk in process:
        output += chunk.data
        if b"ready" in chunk.data:
            process.resize(50, 132)
    assert b"50 132" in output


def test_a_signal_reaches_the_process(box: Container) -> None:
    process = box.exec(
        ["sh", "-c", "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.05; done"], stdin=False
    )
    output = b""
    for chunk in process:
        output += chunk.data
        if b"ready" in chunk.data:
            process.signal(signal.SIGUSR1)
    assert output == b"ready\ncaught\n"
    assert process.ended is not None and process.ended.exit_code == 7


@pytest.mark.parametrize("tty", [None, (24, 80)])
def test_a_signal_that_comes_before_the_program_runs_is_not_lost(client: Client, tty: tuple[int, int] | None) -> None:
    """With so little of the processor there is a long way from the process's birth to its execve."""
    with client.create(cpus=0.01) as slow:
        process = slow.exec(["sleep", "1000"], stdin=False, tty=tty)
        process.signal(signal.SIGTERM)
        ended = process.wait()
    assert (ended.signal, ended.exit_code, ended.failure) == (signal.SIGTERM, None, "")


def test_a_command_that_takes_too_long_is_killed(box: Container) -> None:
    with pytest.raises(TimedOut):
        box.run(["sleep", "1000"], timeout=0.3)
    wait_until(lambda: not any(b"sleep" in one.argv[0] for one in box.ps() if one.argv), "sleep is gone")


def test_any_amount_flows_through_to_a_reader(box: Container) -> None:
    total = 64 << 20
    process = box.exec(["head", "-c", str(total), "/dev/zero"], stdin=False, spool="1M")
    assert sum(len(chunk.data) for chunk in process) == total


def test_output_that_nobody_reads_fills_neither_disk_nor_daemon(box: Container, daemon: RunningDaemon) -> None:
    process = box.exec(["yes"], stdin=False, spool="256K")
    chunks = iter(process)
    next(chunks)
    directory = daemon.state_dir / "containers" / box.id / "execs" / process.exec_id

    def stored() -> int:
        return sum(file.stat().st_blocks * 512 for file in directory.iterdir())

    wait_until(lambda: stored() >= 128 << 10, "the spool has filled")
    assert stored() < 2 << 20
    process.signal(9)
    for _ in chunks:
        pass


def test_the_oldest_output_goes_where_that_was_chosen(box: Container) -> None:
    process = box.exec(["sh", "-c", "head -c 4000000 /dev/zero; echo end"], stdin=False, spool="256K", drop_oldest=True)
    output = list(process)
    assert output[-1].data.endswith(b"end\n")


@pytest.mark.vm
def test_a_killed_daemon_loses_no_byte_and_no_exit_code(client: Client, box: Container, daemon: RunningDaemon) -> None:
    script = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); sleep 0.01; done; exit 42"
    process = box.exec(["sh", "-c", script], stdin=False)
    output = b""
    killed = False
    for chunk in process:
        output += chunk.data
        if not killed and output.count(b"\n") > 50:
            killed = True
            daemon.kill9()
            threading.Thread(target=daemon.start).start()
    assert output.split() == [str(number).encode() for number in range(300)]
    assert process.ended is not None and process.ended.exit_code == 42


def test_input_is_neither_lost_nor_doubled_by_a_killed_daemon(box: Container, daemon: RunningDaemon) -> None:
    process = box.exec(["cat"])
    data = os.urandom(1 << 20)

    def send() -> None:
        for at in range(0, len(data), 4096):
            process.stdin.write(data[at : at + 4096])
        process.stdin.close()

    sender = threading.Thread(target=send)
    sender.start()
    output, killed = b"", False
    for chunk in process:
        output += chunk.data
        if not killed and len(output) > len(data) // 4:
            killed = True
            daemon.kill9()
            threading.Thread(target=daemon.start).start()
    sender.join()
    assert output == data


def test_an_exec_is_found_again_with_its_output_and_its_end(client: Client, box: Container) -> None:
    first = box.exec(["sh", "-c", "echo hello; exit 5"], exec_id="my-exec", stdin=False)
    assert b"".join(chunk.data for chunk in first) == b"hello\n"
    found = next(one for one in box.execs() if one.exec_id == "my-exec")
    assert found.exited.status.code == 5
    assert list(found.argv) == [b"sh", b"-c", b"echo hello; exit 5"]


def test_an_exec_id_is_used_once(box: Container) -> None:
    box.exec(["true"], exec_id="one", stdin=False).wait()
    from sysproc_client import AlreadyExists

    with pytest.raises(AlreadyExists, match="one"):
        box.exec(["true"], exec_id="one", stdin=False).wait()


@pytest.mark.parametrize("exec_id", ["a/b", "..", "x" * 65, "é"])
def test_a_bad_exec_id_is_refused(box: Container, exec_id: str) -> None:
    with pytest.raises(InvalidArgument, match="exec_id"):
        box.exec(["true"], exec_id=exec_id, stdin=False).wait()


def test_an_empty_command_is_refused(box: Container) -> None:
    with pytest.raises(InvalidArgument, match="argv"):
        box.run([])


def test_a_container_that_is_not_there_is_not_found(client: Client, box: Container) -> None:
    box.destroy()
    with pytest.raises(NotFound):
        box.run(["true"])


def test_processes_are_listed_as_the_container_sees_them(box: Container) -> None:
    process = box.exec(["sleep", "1000"], stdin=False, user=1234)
    thread = threading.Thread(target=process.wait)
    thread.start()
    wait_until(lambda: any(one.argv[:1] == [b"sleep"] for one in box.ps()), "sleep is there")
    found = next(one for one in box.ps() if one.argv[:1] == [b"sleep"])
    assert found.pid > 1 and found.host_pid != found.pid and found.uid == 1234
    assert any(one.pid == 1 for one in box.ps())
    process.signal(9)
    thread.join()


def test_many_at_once(box: Container) -> None:
    results: list[bytes] = []

    def one(number: int) -> None:
        results.append(box.run(["echo", str(number)]).stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{number}\n".encode() for number in range(30))
