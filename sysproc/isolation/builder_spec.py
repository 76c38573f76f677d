"""What the launcher is told about a container that it shall build: plain values, as JSON in the message.

The fds that go with it are listed in `sysproc.isolation.launcher_protocol`; how it is built is in
`sysproc.isolation.builder` and `sysproc.isolation.inside`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class CgroupDirectories:
    """The `procs` directories of a container: version 2's, if mounted, and version 1's by hierarchy (`cpu,cpuacct`)."""

    v2: str | None
    v1: Mapping[str, str]


@dataclass(frozen=True)
class ContainerSpec:
    """One container, as the builder needs to know it. Sizes and offsets in bytes, ids of the host.

    rlimits: init's, soft and hard by the number of the resource (as JSON has it: a text).
    """

    id: str
    hostname: str
    uid_base: int
    uid_count: int
    cgroups: CgroupDirectories
    root_offset: int
    root_size: int
    root_fstype: str
    profile: str
    delegate: bool = False
    listen_backlog: int = 128
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The form in the message."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ContainerSpec":
        """Read it back; TypeError or ValueError for anything else."""
        values = json.loads(text)
        values["cgroups"] = CgroupDirectories(**values["cgroups"])
        values["rlimits"] = {name: (soft, hard) for name, (soft, hard) in values["rlimits"].items()}
        return cls(**values)
