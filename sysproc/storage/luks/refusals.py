"""The errors of encrypted volumes, each with what to do about it. They arise in the modules beside this one."""

from sysproc.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SysprocError,
    Unavailable,
    Unimplemented,
)


class WrongKey(PermissionDenied):
    """No key slot opens with this passphrase or key file."""

    reason = "WRONG_SECRET"


class HeaderRefused(DataLoss):
    """The header is damaged, contradicts itself, or was made to mislead."""

    reason = "LUKS_HEADER_REFUSED"


class NotEncrypted(FailedPrecondition):
    """There is no LUKS2 header at all."""

    reason = "NOT_ENCRYPTED"


def wrong_key(not_tried: int = 0) -> WrongKey:
    """No key slot that was tried opens; some may have been left out because trying all would take too long."""
    left = f"{not_tried} key slots were not tried, because all together would take too long." if not_tried else ""
    return WrongKey(
        "The passphrase or key file opens none of the volume's key slots.",
        details=left,
        resolution="Give another passphrase or key file"
        + (", or the number of the key slot that it is for." if left else "; upper and lower case differ."),
    )


def not_encrypted() -> NotEncrypted:
    """Neither copy of a header is there."""
    return NotEncrypted(
        "This is no encrypted volume.",
        details="There is no LUKS2 header, in neither of its two places.",
        resolution="Use it without a passphrase, or make it encrypted when it is created.",
    )


def header_refused(what: str) -> HeaderRefused:
    """The header says something that cannot be."""
    return HeaderRefused(
        "The header of the encrypted volume is damaged, or was made to mislead.",
        details=f"{what}.",
        resolution="Restore the file, or its header, from a backup (cryptsetup luksHeaderRestore).",
    )


def not_supported(what: str) -> Unimplemented:
    """A header that may well be right, of a kind that is not known here."""
    return Unimplemented(
        "The volume is encrypted in a way that is not supported.",
        details=f"{what}.",
        resolution="Open it with cryptsetup, and copy its contents into a volume made here.",
        reason="LUKS_NOT_SUPPORTED",
    )


def too_costly(what: str) -> SysprocError:
    """Opening would take more time or memory than anybody means to spend."""
    return header_refused(f"{what} is more than is spent on opening any volume")


def last_key() -> FailedPrecondition:
    """Without a key slot nobody could ever open it again."""
    return FailedPrecondition(
        "This is the last key of the volume.",
        details="Without it nobody could open the volume any more.",
        resolution="Add another passphrase or key file first, or delete the volume.",
        reason="LAST_KEY",
    )


def no_such_slot(number: int) -> NotFound:
    """The number names no key slot in use."""
    return NotFound(
        f"The volume has no key slot {number}.",
        resolution="Look at the key slots of the volume for the numbers that are in use.",
        reason="KEY_SLOT_NOT_FOUND",
    )


def no_room_for_a_key() -> ResourceExhausted:
    """All numbers are in use, or the area of key material is full."""
    return ResourceExhausted(
        "The volume has no room for another key.",
        resolution="Remove a key that is not needed any more.",
        reason="NO_FREE_KEY_SLOT",
    )


def being_changed() -> Unavailable:
    """Somebody else is at the header."""
    return Unavailable(
        "The keys of this volume are being changed by somebody else.",
        resolution="Try again in a moment.",
        reason="KEYS_BEING_CHANGED",
    )


def in_use() -> FailedPrecondition:
    """Another process decrypts it already."""
    return FailedPrecondition(
        "The volume is open already.",
        details="Decrypted twice at once it would be destroyed.",
        resolution="Use it where it is open, or close it there first.",
        reason="VOLUME_IN_USE",
    )


def unusable_key(what: str) -> InvalidArgument:
    """An empty passphrase, a key file that is too large."""
    return InvalidArgument(
        "This cannot be the key of a volume.",
        details=f"{what}.",
        resolution="Give a passphrase, or a key file, of 1 byte to 8 MiB.",
        reason="UNUSABLE_KEY",
    )


def too_small(size: int, least: int) -> InvalidArgument:
    """The area has no room for header and data."""
    return InvalidArgument(
        "The volume is too small to be encrypted.",
        details=f"It has {size} bytes; the header alone takes {least}.",
        resolution="Make it larger.",
        reason="TOO_SMALL",
    )


def no_direct_io() -> FailedPrecondition:
    """Nobody here reads and writes the encrypted file past the page cache."""
    return FailedPrecondition(
        "This encrypted volume cannot be mounted with direct I/O.",
        details="The kernel has to decrypt it (dm-crypt), and the host's disk or filesystem below has to be able to;"
        " where a process decrypts it, that goes through the host's page cache, and what is decrypted is in memory"
        " once in any case.",
        resolution="Leave direct I/O out.",
        reason="NO_DIRECT_IO",
    )
