"""What a request may say of a volume: sizes, types, labels; what is left open is decided, what is wrong is named."""

import pytest

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.errors import InvalidArgument, PermissionDenied
from sysproc.server.convert import volumes as convert
from sysproc.storage.vsf import layout
from sysproc.volumes import Wanted

MIB = 2**20


def read(message: pb.Volume) -> Wanted:
    return convert.wanted_from_proto(service.CreateVolumeRequest(volume=message), None, None)


def wrong(message: pb.Volume) -> set[str]:
    """The fields with which something is wrong."""
    try:
        read(message)
    except InvalidArgument as error:
        return {one.field for one in error.violations}
    return set()


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (pb.Volume(), {"volume.name", "volume.size_bytes", "volume.filesystems[0].size_bytes"}),
        (pb.Volume(name="A", size_bytes=2**30), {"volume.name"}),
        (pb.Volume(name="a", size_bytes=2**63), {"volume.size_bytes"}),
        (pb.Volume(name="a", size_bytes=2**64 - 1), {"volume.size_bytes"}),
        (pb.Volume(name="a", size_bytes=MIB), {"volume.size_bytes", "volume.filesystems[0].size_bytes"}),
        (pb.Volume(name="a", size_bytes=2**30, on_destroy=9), {"volume.on_destroy"}),  # type: ignore[arg-type]  # no value
        (
            pb.Volume(name="a", filesystems=[pb.Filesystem(type=pb.FILESYSTEM_TYPE_XFS, size_bytes=2**28)]),
            {"volume.filesystems[0].size_bytes"},
        ),
        (
            pb.Volume(name="a", filesystems=[pb.Filesystem(type=pb.FILESYSTEM_TYPE_BTRFS, size_bytes=2**26)]),
            {"volume.filesystems[0].size_bytes"},
        ),
        (pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(type=77)]), {"volume.filesystems[0].type"}),  # type: ignore[arg-type]  # no value
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label="a b")]),
            {"volume.filesystems[0].label"},
        ),
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label="a" * 17)]),
            {"volume.filesystems[0].label"},
        ),
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label="a", size_bytes=2**24)] * 2),
            {"volume.filesystems[1].label"},
        ),
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label="a"), pb.Filesystem(label="b")]),
            {"volume.filesystems[0].size_bytes"},
        ),
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label="a", size_bytes=2**30)]),
            {"volume.size_bytes"},
        ),
        (
            pb.Volume(name="a", size_bytes=2**30, filesystems=[pb.Filesystem(label=f"p{at}") for at in range(17)]),
            {"volume.filesystems"},
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_fields(message: pb.Volume, fields: set[str]) -> None:
    assert wrong(message) == fields


@pytest.mark.parametrize(
    ("message", "size", "filesystems"),
    [
        (pb.Volume(name="a", size_bytes=10 * MIB), 10 * MIB, [("data", "ext4", 8 * MIB)]),
        (pb.Volume(name="a", size_bytes=10 * MIB + 1), 11 * MIB, [("data", "ext4", 9 * MIB)]),
        (
            pb.Volume(
                name="a", filesystems=[pb.Filesystem(label="b", type=pb.FILESYSTEM_TYPE_XFS, size_bytes=300 * MIB)]
            ),
            302 * MIB,
            [("b", "xfs", 300 * MIB)],
        ),
        (
            pb.Volume(
                name="a",
                size_bytes=2**30,
                filesystems=[
                    pb.Filesystem(label="b" * 36, type=pb.FILESYSTEM_TYPE_BTRFS, size_bytes=109 * MIB - 5),
                    pb.Filesystem(label="c", size_bytes=8 * MIB),
                    pb.Filesystem(),
                ],
            ),
            2**30,
            [("b" * 36, "btrfs", 109 * MIB), ("c", "ext4", 8 * MIB), ("data", "ext4", (1024 - 2 - 109 - 8) * MIB)],
        ),
    ],
)
def test_what_is_left_open_is_decided(message: pb.Volume, size: int, filesystems: list[tuple[str, str, int]]) -> None:
    wanted = read(message)
    assert wanted.size_bytes == size
    assert [(one.label, one.type, one.size_bytes) for one in wanted.filesystems] == filesystems
    layout.plan([layout.Wanted(one.label, one.size_bytes) for one in wanted.filesystems], wanted.size_bytes)


def test_only_the_host_promises_more_than_there_is() -> None:
    request = service.CreateVolumeRequest(volume=pb.Volume(name="a", size_bytes=2**30), overcommit=True)
    with pytest.raises(PermissionDenied):
        convert.wanted_from_proto(request, None, 7)
    assert convert.wanted_from_proto(request, None, None).overcommit


@pytest.mark.parametrize("size", [0, 2**63, 2**64 - 1])
def test_a_volume_does_not_grow_to_an_absurd_size(size: int) -> None:
    with pytest.raises(InvalidArgument, match="size_bytes"):
        convert.growth_from_proto(service.GrowVolumeRequest(volume=pb.VolumeRef(name="a"), size_bytes=size))
