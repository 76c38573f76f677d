"""Where a volume may go in a container, and that it goes nowhere else: places that change meanwhile, places of /proc.

By effect: a directory of the host, to which all the links point, and the host's mounts stay as they are; a mount is
where the container sees it, or was refused. Paths that are wrong in themselves are in test_volume_mounts.
"""

from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from sysproc_client import Client, Container, InvalidArgument, NotFound, SysprocError, Volume
from tests.compiled import compiled
from tests.e2e.inside import says, script_inside
from tests.waiting import wait_until

MOUNTS = 12


def is_free(volume: Volume) -> bool:
    return not volume.refresh().attached_to


@pytest.fixture
def data(client: Client) -> Volume:
    return client.volumes.create("data", size="16M")


@pytest.mark.parametrize(
    "link",
    [
        "{host}",
        "../../../../../../../..{host}",
        "/proc/1/root{host}",
        "/proc/self/root{host}",
        "/proc/1/cwd",
        "/tmp/loop",
    ],
)
def test_a_place_that_is_swapped_for_a_link_meanwhile_leads_nowhere_else(
    client: Client, box: Container, data: Volume, tmp_path: Path, link: str
) -> None:
    program = compiled(Path(__file__).with_name("swap.c"))
    if program is None:
        pytest.skip("no C compiler here")
    box.run(["sh", "-c", "cat >/swap && chmod 755 /swap"], input=program.read_bytes())
    says(box, f"mkdir /tmp/place; ln -s {link.format(host=tmp_path)} /tmp/loop")
    refused = 0
    with box.exec(["/swap", "/tmp/place", "/tmp/loop"], stdin=False) as swapping:
        assert next(iter(swapping)).data == b"swapping\n"
        for _ in range(MOUNTS):
            refused += not is_mounted_and_unmounted(client, box, data)
            assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    says(box, "rm -rf /tmp/*")
    assert refused < MOUNTS, "the place is found at least once"


def is_mounted_and_unmounted(client: Client, box: Container, data: Volume) -> bool:
    """Whether it went in; if so, it is in this container, and goes out again by what the kernel says of it."""
    try:
        data.mount(box, "/tmp/place/below")
    except InvalidArgument:
        return False
    (attached,) = data.refresh().attached_to
    assert attached.container_id == int(box.id, 16)
    wait_until(partial(is_taken_out, client, box, data), "it is unmounted")
    return True


def is_taken_out(client: Client, box: Container, data: Volume) -> bool:
    """Where it is changes all the time; the answer is then that it is not there."""
    for attached in data.refresh().attached_to:
        with suppress(NotFound):
            client.volumes.unmount(box, attached.path, force=True)
    return is_free(data)


def test_through_links_of_proc_nothing_is_mounted(box: Container, data: Volume) -> None:
    """What init or another process has open is no place that one can name."""
    says(box, "mkdir /tmp/there; ln -s /proc/self/root/tmp/there /tmp/root; ln -s /proc/1/fd/0 /tmp/fd")
    with box.exec(["sh", "-c", "cd /tmp/there; rmdir /tmp/there; echo $$; exec sleep 1000"], stdin=False) as process:
        pid = int(next(iter(process)).data)
        places = [
            "/proc/1/root/tmp",
            "/proc/self/cwd/x",
            f"/proc/{pid}/cwd",
            f"/proc/{pid}/cwd/x",
            "/tmp/root",
            "/tmp/fd",
        ]
        for place in places:
            with pytest.raises(InvalidArgument, match="Nothing can be mounted"):
                data.mount(box, place)
    assert is_free(data)


@pytest.mark.parametrize(
    "place", ["/proc", "/dev", "/dev/shm", "/run", "/run/sysproc", "/sys", "/sys/fs/cgroup", "/etc"]
)
def test_over_what_the_service_has_put_there_it_is_the_containers_own_matter(
    client: Client, box: Container, data: Volume, place: str
) -> None:
    """The service needs none of it: what runs inside is looked after, ended, and the volume taken out again."""
    with suppress(SysprocError):
        data.mount(box, place)
    assert [one.path.decode() for one in data.refresh().attached_to] in ([place], [])
    assert box.run(["/bin/true"]).exit_code == 0
    assert len(box.ps()) >= 1
    if data.attached_to:
        client.volumes.unmount(box, place)
    assert script_inside(box, "answer = client.whoami().container_id") is not None


def test_on_a_mount_of_the_containers_own_it_is_on_top(client: Client, box: Container, data: Volume) -> None:
    says(box, "mkdir -p /tmp/a /tmp/b /srv; touch /tmp/a/own; mount -o bind /tmp/a /tmp/b; mount -t tmpfs none /srv")
    for place in ("/tmp/b", "/srv"):
        data.mount(box, place)
        assert says(box, f"ls {place}") == b"lost+found\n" and says(box, "ls /tmp/a") == b"own\n"
        client.volumes.unmount(box, place)
        with pytest.raises(NotFound, match="No volume is mounted"):
            client.volumes.unmount(box, place)
    assert says(box, "ls /tmp/b; grep -c ' /srv ' /proc/mounts") == b"own\n1\n"
