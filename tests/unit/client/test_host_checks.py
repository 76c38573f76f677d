"""What `sysproc doctor` makes of a host: of files that say so, in a directory."""

from pathlib import Path

import pytest

from sysproc_client.cli.host_checks import (
    Finding,
    Host,
    apparmor,
    cgroups,
    fuse,
    kernel,
    loop_devices,
    socket_of,
    tools,
    user_namespaces,
)

V1 = "cgroup /sys/fs/cgroup/{0} cgroup rw,{0} 0 0\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host on which everything works."""
    for name in ("dev/loop-control", "dev/fuse", "proc/self/ns/user"):
        write(tmp_path, name)
    write(tmp_path, "proc/self/mounts", "".join(map(V1.format, ("memory", "cpu", "pids"))))
    write(tmp_path, "proc/sys/user/max_user_namespaces", "15000\n")
    return Host(root=tmp_path, uid=0, release="6.1.0-18-amd64", path=str(tmp_path / "bin"))


def write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def judged(found: Finding) -> tuple[str, bool]:
    return found.severity, bool(found.to_do)


def test_a_good_host_is_fine(host: Host) -> None:
    checks = (kernel, cgroups, user_namespaces, loop_devices, apparmor, fuse)
    assert [check(host).severity for check in checks] == ["fine"] * len(checks)


def test_an_old_kernel_is_an_error(host: Host) -> None:
    assert judged(kernel(Host(root=host.root, release="5.15.0"))) == ("error", True)


def test_no_cgroups_are_an_error_and_a_missing_controller_a_warning(host: Host) -> None:
    write(host.root, "proc/self/mounts", V1.format("memory") + V1.format("cpu"))
    assert judged(cgroups(host)) == ("warning", True) and "pids" in cgroups(host).what
    write(host.root, "proc/self/mounts", "proc /proc proc rw 0 0\n")
    assert judged(cgroups(host)) == ("error", True)


def test_controllers_of_version_two_count(host: Host) -> None:
    write(host.root, "proc/self/mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    write(host.root, "sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n")
    assert cgroups(host).severity == "fine"


def test_user_namespaces_that_are_not_or_may_not_be_are_errors(host: Host) -> None:
    write(host.root, "proc/sys/user/max_user_namespaces", "0\n")
    assert judged(user_namespaces(host)) == ("error", True)
    (host.root / "proc/self/ns/user").unlink()
    assert judged(user_namespaces(host)) == ("error", True)


def test_devices_that_are_not_there_are_said(host: Host) -> None:
    for name, check, severity in (("loop-control", loop_devices, "error"), ("fuse", fuse, "warning")):
        (host.root / "dev" / name).unlink()
        assert judged(check(host)) == (severity, True)


def test_a_restriction_of_apparmor_is_a_note(host: Host) -> None:
    write(host.root, "proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n")
    assert judged(apparmor(host)) == ("note", True)


def test_of_a_tool_that_is_missing_its_package_is_named(host: Host) -> None:
    write(host.root, "bin/mkfs.xfs")
    (host.root / "bin/mkfs.xfs").chmod(0o755)
    found = {one.name: one for one in tools(host)}
    assert found["mkfs.xfs"].severity == "fine"
    assert judged(found["mke2fs"]) == ("error", True) and "e2fsprogs" in found["mke2fs"].to_do


def test_a_file_that_is_no_socket_is_said(host: Host) -> None:
    assert [one.severity for one in socket_of(host, "unix:///dev/fuse")] == ["error"]
    assert "no socket" in next(socket_of(host, "unix:///dev/fuse")).what
    assert "There is no" in next(socket_of(host, "unix:///run/none.sock")).what
