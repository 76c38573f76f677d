"""All settings of the daemon, as one frozen value, and the one cascade that decides each.

    flag  >  SYSPROC_<NAME>  >  the TOML file (--config)  >  default

Environment and arguments are parameters here. How each text is read is in `sysproc.server.setting_values`; the
command line is made from this class by `sysproc.server.main`; what a setting does lies with who is given it.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from sysproc.errors import InvalidArgument
from sysproc.server.setting_values import (
    Endpoint,
    Parse,
    TcpEndpoint,
    UidRangeSetting,
    UnixEndpoint,
    absolute,
    choice,
    directory,
    endpoints,
    first_and_count,
    name_of_group,
    seconds,
    size_bytes,
    text_of,
    trust_domain,
    whole,
)

PREFIX = "SYSPROC_"
CONFIG = Path("/etc/sysproc/sysprocd.toml")
CONFIG_VARIABLE = "SYSPROC_CONFIG"
# Between what systemd-nspawn takes (524288 to 1879048191) and systemd's range of foreign uids (0x7FFE0000 to
# 0x7FFEFFFF, from its version 258 on), which files of images belong to.
DEFAULT_UIDS = UidRangeSetting(0x70000000, 4094)
# Variables of the same prefix that are not settings of the daemon.
FOREIGN = frozenset(
    {
        *(CONFIG_VARIABLE, "SYSPROC_ENDPOINT", "SYSPROC_FAILPOINTS", "SYSPROC_VM_CACHE"),
        # What callers show. The server's are SYSPROC_SERVER_TLS_…, so that one shell can have both.
        *("SYSPROC_TLS_CA", "SYSPROC_TLS_CERT", "SYSPROC_TLS_KEY"),
    }
)


@dataclass(frozen=True)
class Setting:
    """What it takes to read a setting from a text, and to show it in --help."""

    parse: Parse
    metavar: str
    help: str


@dataclass(frozen=True)
class TlsFiles:
    """Where the parts of TLS are. domain: the callers' trust domain; None: the one that the authority names."""

    cert: Path
    key: Path
    ca: Path
    crl: Path
    domain: str | None = None

    def all(self) -> tuple[Path, ...]:
        """Every file."""
        return self.cert, self.key, self.ca, self.crl


@dataclass(frozen=True)
class Settings:
    """What the daemon was told. Sizes in bytes, times in seconds; None: found out at start."""

    state_dir: Annotated[Path, Setting(directory, "DIR", "What lasts: the database, images, containers.")] = Path(
        "/var/lib/sysproc"
    )
    runtime_dir: Annotated[Path, Setting(directory, "DIR", "Sockets; gone when the host restarts.")] = Path(
        "/run/sysproc"
    )
    listen: Annotated[
        tuple[Endpoint, ...],
        Setting(
            endpoints,
            "URL",
            "unix:///PATH for callers of this host (default: <runtime-dir>/sysproc.sock), tcp://HOST:PORT for others, "
            "by mutual TLS; repeatable.",
        ),
    ] = ()
    tls_dir: Annotated[Path, Setting(absolute, "DIR", "For tcp://: what `sysproc cert init DIR` makes.")] = Path(
        "/etc/sysproc/tls"
    )
    tls_cert: Annotated[
        Path | None, Setting(absolute, "FILE", "The server's certificate. Default: <tls-dir>/server.pem.")
    ] = None
    tls_key: Annotated[Path | None, Setting(absolute, "FILE", "Its key. Default: <tls-dir>/server.key.")] = None
    tls_ca: Annotated[
        Path | None, Setting(absolute, "FILE", "Whose certificates callers have. Default: <tls-dir>/ca.pem.")
    ] = None
    tls_crl: Annotated[
        Path | None, Setting(absolute, "FILE", "Which of these were revoked. Default: <tls-dir>/crl.pem.")
    ] = None
    tls_domain: Annotated[
        str | None, Setting(trust_domain, "DOMAIN", "Trust domain of callers. Default: the one that the CA names.")
    ] = None
    group: Annotated[str, Setting(name_of_group, "GROUP", "On the host its members may call, besides root.")] = (
        "sysproc"
    )
    cgroup_root: Annotated[
        str | None,
        Setting(text_of, "PATH", "Below which cgroup, in every hierarchy, containers are made. Default: found out."),
    ] = None
    uid_range: Annotated[
        UidRangeSetting,
        Setting(first_and_count, "FIRST:COUNT", "First uid, and for how many containers (65536 each)."),
    ] = DEFAULT_UIDS
    uid_claims: Annotated[
        Path, Setting(directory, "DIR", "Shared by all daemons of this host: who has which uids.")
    ] = Path("/run/sysproc-uids")
    busybox_path: Annotated[
        Path | None, Setting(absolute, "FILE", "A static busybox, for the image of that name. Default: from PATH.")
    ] = None
    spool_bytes: Annotated[
        int, Setting(size_bytes(64 * 2**10, 2**30), "SIZE", "Unread output kept a stream, unless its start says more.")
    ] = 16 * 2**20
    connections_per_container: Annotated[
        int,
        Setting(whole(1, 65536), "N", "Connections of one container at a time, and new ones a second."),
    ] = 64
    calls_per_second: Annotated[
        int,
        Setting(
            whole(1, 10**6), "N", "Calls of one container, two at once; more have to wait. A start counts as five."
        ),
    ] = 250
    messages_per_container: Annotated[
        int,
        Setting(
            size_bytes(8 * 2**20, 2**40), "SIZE", "Held for one container's calls under way; more ends a connection."
        ),
    ] = 64 * 2**20
    calls_per_container: Annotated[
        int, Setting(whole(1, 65536), "N", "Calls of one container under way at a time; more are refused.")
    ] = 512
    starts_per_container: Annotated[
        int, Setting(whole(1, 65536), "N", "What one container is starting at a time; more have to wait.")
    ] = 2
    streams_per_connection: Annotated[
        int, Setting(whole(1, 65536), "N", "Calls at a time on one connection; more have to wait.")
    ] = 100
    decrypt_by: Annotated[
        str,
        Setting(
            choice("auto", "process"),
            "HOW",
            "Encrypted volumes: auto, by dm-crypt where the kernel has it; or process.",
        ),
    ] = "auto"
    luks_iter_time_s: Annotated[
        float, Setting(seconds(0.01, 60), "SECONDS", "What a new key of an encrypted volume costs who tries one.")
    ] = 1.0
    shutdown_grace_s: Annotated[
        float, Setting(seconds(0, 3600), "SECONDS", "How long calls may go on after SIGTERM.")
    ] = 5.0
    log_format: Annotated[
        str, Setting(choice("auto", "console", "json"), "FORMAT", "auto, console or json; auto: console on a terminal.")
    ] = "auto"
    log_level: Annotated[
        str, Setting(choice("debug", "info", "warning", "error"), "LEVEL", "debug, info, warning or error.")
    ] = "info"

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where to listen. The host's own callers always have a socket: the default one, if none is named."""
        if any(isinstance(one, UnixEndpoint) for one in self.listen):
            return self.listen
        return (UnixEndpoint(self.runtime_dir / "sysproc.sock"), *self.listen)

    @property
    def tls_files(self) -> TlsFiles | None:
        """The files of TLS; None where nothing listens on TCP."""
        if not any(isinstance(one, TcpEndpoint) for one in self.endpoints):
            return None
        return TlsFiles(
            cert=self.tls_cert or self.tls_dir / "server.pem",
            key=self.tls_key or self.tls_dir / "server.key",
            ca=self.tls_ca or self.tls_dir / "ca.pem",
            crl=self.tls_crl or self.tls_dir / "crl.pem",
            domain=self.tls_domain,
        )


@dataclass(frozen=True)
class Decided:
    """The settings, and for each where its value came from, for people."""

    settings: Settings
    origins: Mapping[str, str]

    def lines(self) -> Iterable[str]:
        """One line a setting: its key, its value, its origin."""
        values = {name: getattr(self.settings, name) for name in SETTINGS} | {"listen": self.settings.endpoints}
        rows = [(name, shown(value), self.origins[name]) for name, value in values.items()]
        key, value = (max(len(row[column]) for row in rows) for column in (0, 1))
        return (f"{row[0]:{key}}  {row[1]:{value}}  {row[2]}" for row in rows)


SETTINGS: Mapping[str, Setting] = {
    name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()
}


def decide(flags: Mapping[str, Any], environment: Mapping[str, str], config: Path | None = None) -> Decided:
    """Run the cascade. flags: by field name, absent where not given. Raises InvalidArgument with what to do."""
    refuse_misspelt(environment)
    path, file = read_file(config, environment)
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")
    for name, setting in SETTINGS.items():
        for origin, where, source, key in (
            (flag(name), flag(name), flags, name),
            (variable(name), variable(name), environment, variable(name)),
            (str(path), f"`{name}` in {path}", file, name),
        ):
            if key in source:
                values[name], origins[name] = parsed(setting, source[key], where), origin
                break
    return Decided(Settings(**values), origins)


def parsed(setting: Setting, raw: object, where: str) -> Any:
    """The value, or InvalidArgument that says where the bad one came from."""
    try:
        return setting.parse(raw)
    except ValueError as why:
        raise InvalidArgument(
            f"{where}: {why}.",
            resolution=f"It takes {setting.metavar}: {setting.help}",
            reason="BAD_SETTING",
        ) from why


def read_file(config: Path | None, environment: Mapping[str, str]) -> tuple[Path, Mapping[str, Any]]:
    """The TOML file and its content; one that was named must exist, the default one need not."""
    named = config or (Path(environment[CONFIG_VARIABLE]) if environment.get(CONFIG_VARIABLE) else None)
    path = named or CONFIG
    try:
        content = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        if named is None:
            return path, {}
        raise unreadable(path, "it does not exist") from error
    except (OSError, ValueError) as error:
        raise unreadable(path, str(error)) from error
    for key in content:
        if key not in SETTINGS:
            raise unknown(f"`{key}` in {path}", key, list(SETTINGS))
    return path, content


def refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A variable that is nearly a setting's is a mistake; others of the prefix may be somebody else's."""
    known = [variable(name) for name in SETTINGS]
    for name in environment:
        strange = name.startswith(PREFIX) and name not in FOREIGN and name not in known
        if strange and difflib.get_close_matches(name, known, cutoff=0.8):
            raise unknown(f"the variable {name}", name, known)


def unknown(what: str, key: str, known: Sequence[str]) -> InvalidArgument:
    """The error for a key that is no setting, with a guess."""
    guess = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean `{guess[0]}`?" if guess else f"There are: {', '.join(known)}."
    return InvalidArgument(f"There is no such setting: {what}.", resolution=hint, reason="UNKNOWN_SETTING")


def unreadable(path: Path, why: str) -> InvalidArgument:
    """The error for a configuration file that cannot be used."""
    return InvalidArgument(
        f"The configuration {path} cannot be read: {why}.",
        resolution="Mend the file, or name another by --config.",
        reason="BAD_CONFIG",
    )


def flag(name: str) -> str:
    """The command line's spelling of a field."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """The environment's spelling of a field."""
    return PREFIX + ("SERVER_" if name.startswith("tls_") else "") + name.upper()


def shown(value: object) -> str:
    """A value as people write it; nothing for one that is found out at start."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "" if value is None else str(value)
