"""Types of partitions by what they are called, after the Discoverable Partitions Specification.

systemd-dissect, systemd-gpt-auto-generator and friends know by the type where a filesystem belongs; a label that
says nothing of the kind gets the type of any Linux filesystem, which they leave alone. The table that holds them is
the business of `sysproc.storage.vsf.gpt`.
"""

import platform
import uuid

LINUX_GENERIC = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_OF_ANY_MACHINE = {
    "home": uuid.UUID("933ac7e1-2eb4-4f13-b844-0e14e2aef915"),
    "srv": uuid.UUID("3b8f8425-20e0-4f3b-907f-1a25a76f98e8"),
    "tmp": uuid.UUID("7ec6f557-3bc5-4aca-b293-16ef5df639d1"),
    "var": uuid.UUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d"),
}
_OF_MACHINE = {
    "x86_64": {
        "root": uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
        "usr": uuid.UUID("8484680c-9521-48c6-9c11-b0720656f69e"),
    },
    "aarch64": {
        "root": uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
        "usr": uuid.UUID("b0e01050-ee5f-4390-949a-9101b17104e9"),
    },
}


def type_of(label: str) -> uuid.UUID:
    """The type for a partition of this label, on this machine."""
    return {**_OF_ANY_MACHINE, **_OF_MACHINE.get(platform.machine(), {})}.get(label, LINUX_GENERIC)
