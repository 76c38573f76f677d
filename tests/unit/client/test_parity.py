"""The two shells of the client have the same shape: what one has, the other has by the same name, in the same words."""

import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pytest

import sysproc_client
from sysproc_client import Client, Container, Process, Volume, aio
from sysproc_client.aio.client import AsyncClient
from sysproc_client.aio.container import AsyncContainer
from sysproc_client.aio.ending import AsyncEnding
from sysproc_client.aio.images import AsyncImages
from sysproc_client.aio.process import AsyncOutput, AsyncProcess, AsyncStdin
from sysproc_client.aio.volume_mounts import AsyncMount
from sysproc_client.aio.volumes import AsyncVolume, AsyncVolumes
from sysproc_client.ending import Ending
from sysproc_client.images import Images
from sysproc_client.process import Output, Stdin
from sysproc_client.volume_mounts import Mount
from sysproc_client.volumes import Volumes

PAIRS = (
    (Client, AsyncClient),
    (Container, AsyncContainer),
    (Ending, AsyncEnding),
    (Images, AsyncImages),
    (Mount, AsyncMount),
    (Output, AsyncOutput),
    (Process, AsyncProcess),
    (Stdin, AsyncStdin),
    (Volume, AsyncVolume),
    (Volumes, AsyncVolumes),
)
AWAITED = {"__aenter__": "__enter__", "__aexit__": "__exit__", "__aiter__": "__iter__"}
MAGIC = {*AWAITED.values()}
# What a thread has by itself.
OF_THREADS = {name for name in dir(Ending.__mro__[1]) if name not in MAGIC} | {"run"}


def members(kind: type) -> Mapping[str, Any]:
    """What a program can use of it, by the names of the sync shell."""
    found = {AWAITED.get(name, name): getattr(kind, name) for name in dir(kind)}
    return {name: one for name, one in found.items() if (not name.startswith("_") or name in MAGIC)}


def comparable(kind: type) -> Mapping[str, Any]:
    return {name: one for name, one in members(kind).items() if kind is not Ending or name not in OF_THREADS}


def shape(member: Any) -> object:
    """The arguments of a method, with their kinds and defaults, the types as the sync shell has them."""
    if not callable(member):
        return type(member)
    parameters = inspect.signature(member).parameters.values()
    return [(one.name, one.kind, is_function(one.default), type_name(one.annotation)) for one in parameters]


def type_name(annotation: object) -> str:
    """As the sync shell has it."""
    return str(annotation).replace("Async", "").replace("aio.", "")


def is_function(default: object) -> object:
    """Two functions that are written down twice are the same."""
    return callable if inspect.isfunction(default) else default


def words(member: Any) -> str:
    """Its docstring, as the sync shell has it."""
    return re.sub("Async", "", inspect.getdoc(member) or "").replace("task", "thread")


def shared() -> Iterator[tuple[str, Any, Any]]:
    for sync, later in PAIRS:
        theirs = comparable(later)
        for name, one in comparable(sync).items():
            if name in theirs:
                yield f"{sync.__name__}.{name}", one, theirs[name]


@pytest.mark.parametrize(("sync", "later"), PAIRS)
def test_neither_shell_has_what_the_other_has_not(sync: type, later: type) -> None:
    assert sorted(comparable(sync)) == sorted(comparable(later))


def test_both_packages_offer_the_same_kinds() -> None:
    """What is not of either shell, as results and errors, is in the package of the sync one only."""
    of_shells = {kind.__name__ for pair in PAIRS for kind in pair}
    assert {f"Async{name}" for name in of_shells & {*sysproc_client.__all__}} == {*aio.__all__}


@pytest.mark.parametrize("package", [sysproc_client, aio])
def test_whatever_a_package_offers_is_there(package: ModuleType) -> None:
    assert [name for name in package.__all__ if getattr(package, name).__name__ != name] == []


@pytest.mark.parametrize(("sync", "later"), PAIRS)
def test_both_are_described_in_the_same_words(sync: type, later: type) -> None:
    assert words(later) == words(sync)


def test_the_methods_take_the_same_arguments() -> None:
    assert {name: shape(later) for name, _, later in shared()} == {name: shape(sync) for name, sync, _ in shared()}


def test_the_methods_are_described_in_the_same_words() -> None:
    assert {name: words(later) for name, _, later in shared()} == {name: words(sync) for name, sync, _ in shared()}


def test_both_make_clients_of_the_same_arguments() -> None:
    assert shape(AsyncClient) == shape(Client)


def test_whatever_may_wait_is_awaited() -> None:
    """What is only prepared, or found without asking, is not; what is entered or iterated says so by itself."""
    at_once = {"Client.at", "Container.attach", "Container.exec", "Container.destroying", "Volume.check"}
    made = {"Client.create", "Volume.mount", "Volumes.create"}
    plain = {
        name
        for name, sync, later in shared()
        if inspect.isfunction(sync) and not inspect.iscoroutinefunction(later) and name.split(".")[1] not in MAGIC
    }
    assert plain == at_once | made
