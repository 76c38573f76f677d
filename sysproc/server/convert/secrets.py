"""Passphrases and key files in requests: copied into locked memory at once, and overwritten where they came from.

What cannot be overwritten: the copies that protobuf and gRPC keep until the call ends, in memory of theirs that is not
locked. From here on there are none (`sysproc.linux.memory`), and nothing writes one down (`sysproc.server.redacted`).
"""

from nightos.sysproc.v1 import volume_pb2 as pb
from nightos.sysproc.v1 import volume_service_pb2 as service
from sysproc.linux.memory import SecretBuffer, wipe
from sysproc.server import validate
from sysproc.server.validate import Findings
from sysproc.storage.decrypted.key_work import ADD, CHANGE, REMOVE
from sysproc.storage.volumes import NONE
from sysproc.unlocking import MOST_SECRET_BYTES
from sysproc.volume_keys import KeyChange, LockState

CHANGES = {
    service.VOLUME_KEY_CHANGE_ADD: ADD,
    service.VOLUME_KEY_CHANGE_REPLACE: CHANGE,
    service.VOLUME_KEY_CHANGE_REMOVE: REMOVE,
}
MOST_SLOT = 31


def taken(data: bytes) -> SecretBuffer:
    """The caller's to close. data: nobody else's."""
    secret = SecretBuffer.of(data)
    wipe(data)
    return secret


def check(field: str, length: int, findings: Findings) -> None:
    """What a secret may be."""
    findings.check(length > 0, field, "is empty: give a passphrase, or what is in a key file")
    findings.check(length <= MOST_SECRET_BYTES, field, f"has {length} bytes: at most {MOST_SECRET_BYTES}")


def secret_of_new(request: service.CreateVolumeRequest, encryption: str, findings: Findings) -> SecretBuffer | None:
    """The first key of a volume that is to be encrypted; one that is not has none."""
    data = request.secret
    if encryption in (NONE, ""):
        findings.check(not data, "secret", "is for encrypted volumes: say what of it shall be encrypted")
        return None
    check("secret", len(data), findings)
    return taken(data)


def secret_of(
    request: service.MountVolumeRequest | service.GrowVolumeRequest | service.CheckVolumeRequest,
) -> SecretBuffer | None:
    """What opens a volume that is there; None if nothing was said."""
    data = request.secret
    if not data:
        return None
    validate.valid(lambda findings: check("secret", len(data), findings))
    return taken(data)


def change_from_proto(request: service.ChangeVolumeKeysRequest) -> tuple[str, KeyChange]:
    """Of which volume, and what."""

    def read(findings: Findings) -> tuple[str, KeyChange]:
        verb, data, new = CHANGES.get(request.change, ""), request.secret, request.new_secret
        findings.name("volume.name", request.volume.name)
        findings.check(verb != "", "change", "is nothing that can become of keys")
        check("secret", len(data), findings)
        if verb == REMOVE:
            findings.check(not new, "new_secret", "is not empty: none is added where one is removed")
        else:
            check("new_secret", len(new), findings)
            findings.check(not request.HasField("slot"), "slot", "is for removing a key")
        slot = request.slot if request.HasField("slot") else None
        findings.number("slot", slot, (0, MOST_SLOT))
        return request.volume.name, KeyChange(verb, taken(data), taken(new) if new else None, slot)

    return validate.valid(read)


def add_state(volume: pb.Volume, state: LockState) -> None:
    """What is known of a volume's keys at this moment."""
    volume.unlocked, volume.broken = state.unlocked, state.broken
    for filesystem, slots in zip(volume.filesystems, state.key_slots, strict=False):
        filesystem.key_slots.extend(slots)
