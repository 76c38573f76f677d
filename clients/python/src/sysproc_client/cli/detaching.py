"""The keys that leave a process on a terminal to itself, and what is said then.

    ctrl-p,ctrl-q   the keys by their names, one after the other
    none            no keys do that

What is typed goes through `DetachKeys`: keys that may be the beginning are kept until it is clear. Who uses it is
`sysproc_client.cli.session`.
"""

from dataclasses import dataclass, field

import click

DEFAULT = "ctrl-p,ctrl-q"
NONE = "none"
_CONTROL = 0x1F
# What Ctrl makes control characters of, besides letters.
_SPECIAL = "@[\\]^_"


def sequence(_: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """The bytes of `ctrl-p,ctrl-q`; empty for none."""
    if value == NONE:
        return b""
    keys = value.split(",")
    if not all(key.isascii() and (len(key) == 1 or is_control(key)) for key in keys):
        raise click.BadParameter(f"{value!r}: write keys as ctrl-p,ctrl-q or a,b; or `{NONE}`.", param=parameter)
    return bytes(ord(key[-1].upper()) & _CONTROL if len(key) > 1 else ord(key) for key in keys)


def is_control(key: str) -> bool:
    """Whether it is `ctrl-` and something that has such a character."""
    return key.startswith("ctrl-") and len(key) == len("ctrl-x") and (key[-1].isalpha() or key[-1] in _SPECIAL)


detach_option = click.option(
    "--detach-keys",
    default=DEFAULT,
    show_default=True,
    callback=sequence,
    metavar="KEYS",
    help="With -it (run: and --keep): leave it to itself, `sysproc attach` comes back. `none`: no keys do that.",
)


@dataclass
class DetachKeys:
    """What of the input goes on. complete: the keys have been typed, nothing goes on any more."""

    keys: bytes
    complete: bool = False
    _kept: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> bytes:
        """What goes on now; what was kept and led nowhere goes first."""
        if not self.keys:
            return data
        on = bytearray()
        for byte in data:
            self._kept.append(byte)
            if self._kept == self.keys:
                self.complete = True
                break
            while self._kept and not self.keys.startswith(self._kept):
                on.append(self._kept.pop(0))
        return bytes(on)
