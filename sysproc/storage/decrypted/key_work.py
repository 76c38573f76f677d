"""The process that changes the keys of a volume, or tries one: it is told the secrets, edits the headers, and ends.

    key_work add     OFFSET:SIZE…          the new secret opens each of these areas as well
    key_work change  OFFSET:SIZE…          the new secret instead of the one that is shown
    key_work remove  OFFSET:SIZE… [SLOT]   the one that is shown opens none of them any more; or that slot does not
    key_work check   OFFSET:SIZE…          whether the one that is shown opens each of them, be they in use or not

Of several areas all are tried before the first is changed. A cut between two is made up for by the same call once
more: an area that was changed already is left as it is. What the process becomes before it reads a secret is in
`sysproc.storage.decrypted.hardened`; the order of writes in one header in `sysproc.storage.luks.volume`.
"""

import json
import socket
import sys
from collections.abc import Sequence
from functools import partial

from sysproc.failpoints import failpoint
from sysproc.linux.unix_sockets import send_with_fds
from sysproc.storage.decrypted.hardened import NEW_SECRET_FD, SECRET_FD, VOLUME_FD, read_secret, run
from sysproc.storage.luks.refusals import WrongKey, last_key, no_such_slot, wrong_key
from sysproc.storage.luks.region import Region
from sysproc.storage.luks.volume import add_key, change_key, open_volume, remove_key, unlock

NAME = "sysproc-keys"
ADD, CHANGE, REMOVE, CHECK = "add", "change", "remove", "check"


def main(arguments: list[str]) -> None:
    """See above: started by what `sysproc.storage.decrypted.opening` says only."""
    verb, places, slots = arguments[0], [one for one in arguments[1:] if ":" in one], arguments[1:]
    regions = [Region(VOLUME_FD, *map(int, place.split(":"))) for place in places]
    slot = next((int(one) for one in slots if ":" not in one), None)
    run(NAME, NEW_SECRET_FD, partial(work, verb, regions, slot))


def work(verb: str, regions: Sequence[Region], slot: int | None, report: socket.socket) -> None:
    """Read both secrets, and do it."""
    with read_secret(SECRET_FD) as secret, read_secret(NEW_SECRET_FD) as new:
        if verb == REMOVE:
            remove(regions, secret.view, slot)
        elif verb == CHECK:
            check(regions, secret.view)
        else:
            replace(verb, regions, secret.view, new.view)
    send_with_fds(report, json.dumps({}).encode())


def replace(verb: str, regions: Sequence[Region], secret: memoryview, new: memoryview) -> None:
    """Add the new secret to each area, or change this one into it."""
    edit = add_key if verb == ADD else change_key
    left = [one for one in regions if not _is_done(verb, one, secret, new)] if len(regions) > 1 else regions
    for region in left:
        edit(region, secret, new)
        failpoint("volumes.keys.after_area")


def _is_done(verb: str, region: Region, secret: memoryview, new: memoryview) -> bool:
    """Whether a cut came after this area. WrongKey if it was none of ours."""
    has_old, has_new = slot_of(region, secret) is not None, slot_of(region, new) is not None
    if not has_old and not has_new:
        raise wrong_key()
    return has_new and (verb == ADD or not has_old)


def remove(regions: Sequence[Region], secret: memoryview, slot: int | None) -> None:
    """Remove the key that was shown from each area that has it; or the slot of this number, for who has a key."""
    found = [slot_of(region, secret) for region in regions]
    if not any(one is not None for one in found):
        raise wrong_key()
    going = [(region, mine if slot is None else slot) for region, mine in zip(regions, found, strict=True)]
    present = [(region, one) for region, one in going if one is not None and (slot is None or one in slots(region))]
    if slot is not None and not present:
        raise no_such_slot(slot)
    if any(len(slots(region)) == 1 for region, _ in present):
        raise last_key()
    for region, one in present:
        remove_key(region, one)
        failpoint("volumes.keys.after_area")


def check(regions: Sequence[Region], secret: memoryview) -> None:
    """Raise WrongKey for a secret that does not open each of these areas; nothing is changed."""
    for region in regions:
        unlock(region, open_volume(region), secret).key.close()


def slots(region: Region) -> Sequence[int]:
    """The numbers of an area's keys."""
    return sorted(open_volume(region).metadata.slots)


def slot_of(region: Region, secret: memoryview) -> int | None:
    """Which slot of the area the secret opens; None: none."""
    try:
        unlocked = unlock(region, open_volume(region), secret)
    except WrongKey:
        return None
    unlocked.key.close()
    return unlocked.slot


if __name__ == "__main__":
    main(sys.argv[1:])
