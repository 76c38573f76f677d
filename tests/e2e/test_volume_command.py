"""`sysproc volume`: what it prints, for people and for programs, and how it refuses."""

import json

import pytest

from sysproc_client import Client
from tests.e2e.conftest import Sysproc

MIB = 2**20
FIELDS = {"name", "size", "owner", "encrypted", "filesystems", "attached_to"}


def test_a_volume_is_created_listed_inspected_grown_and_deleted(sysproc: Sysproc, client: Client) -> None:
    box = client.create(name="web")
    assert sysproc("volume", "create", "data", "--size", "16M").stdout == b"data\n"
    made = sysproc(
        "volume", "create", "own", "--size", "16M", "--owner", "web", "-o", "json", "--on-destroy", "reparent"
    )
    assert json.loads(made.stdout)["owner"] == box.id
    listed = json.loads(sysproc("volume", "list", "-o", "json").stdout)
    assert [(one["name"], one["owner"], one["size"]) for one in listed] == [
        ("data", "", 16 * MIB),
        ("own", box.id, 16 * MIB),
    ]
    assert all(one.keys() >= FIELDS for one in listed)
    assert (listed[0]["encrypted"], listed[0]["attached_to"]) == (False, [])
    assert [(one["label"], one["type"], one["size"]) for one in listed[0]["filesystems"]] == [
        ("data", "ext4", 14 * MIB)
    ]
    assert [one["name"] for one in json.loads(sysproc("volume", "list", "--owner", "web", "-o", "json").stdout)] == [
        "own"
    ]
    grown = sysproc("volume", "grow", "web/own", "--size", "32M", "-o", "json")
    assert json.loads(grown.stdout)["size"] == 32 * MIB
    assert json.loads(sysproc("volume", "inspect", "own", "--owner", "web", "-o", "json").stdout)["size"] == 32 * MIB
    for subcommand in (("list",), ("inspect", "web/own")):
        shown = sysproc("volume", *subcommand).stdout.decode()
        assert all(word in shown for word in ("own", box.id, "32M", "ext4"))
    assert sysproc("volume", "delete", "data", "web/own").returncode == 0
    assert json.loads(sysproc("volume", "list", "-o", "json").stdout) == []


def test_several_filesystems_are_said_one_by_one(sysproc: Sysproc) -> None:
    parts = ("--part", "home:ext4:16M", "--part", "rest:ext4")
    made = json.loads(sysproc("volume", "create", "mixed", "--size", "64M", *parts, "-o", "json").stdout)
    assert [(one["label"], one["size"]) for one in made["filesystems"]] == [("home", 16 * MIB), ("rest", 46 * MIB)]
    sized = json.loads(sysproc("volume", "create", "sized", "--part", "a:ext4:16M", "-o", "json").stdout)
    assert sized["size"] == 18 * MIB


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "data"), b"--size"),
        (("create", "data", "--size", "much"), b"size"),
        (("create", "data", "--size", "1M"), b"10485760"),
        (("create", "data", "--size", "1G", "--fs", "ntfs"), b"ntfs"),
        (("create", "data", "--part", "a"), b"LABEL:TYPE:SIZE"),
        (("create", "data", "--part", "a:ext4:16M", "--fs", "ext4"), b"--part"),
        (("create", "DATA", "--size", "1G"), b"volume.name"),
        (("create", "data", "--size", "1G", "--owner", "nobody"), b"There is no container nobody"),
        (("inspect", "nothing"), b"There is no volume named nothing"),
        (("grow", "nothing", "--size", "1G"), b"There is no volume named nothing"),
        (("delete", "nothing"), b"There is no volume named nothing"),
    ],
)
def test_what_cannot_be_done_is_said(sysproc: Sysproc, arguments: tuple[str, ...], says: bytes) -> None:
    refused = sysproc("volume", *arguments)
    assert refused.returncode != 0
    assert says in refused.stderr and b"Traceback" not in refused.stderr
