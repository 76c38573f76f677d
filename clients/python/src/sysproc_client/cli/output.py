"""What is printed: documents and names for programs; times and sizes in words for people.

Tables are in `sysproc_client.cli.tables`.

What comes from inside a container is never trusted: control characters are shown, not obeyed.
"""

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sysproc_client.container import Container

_UNITS = ("B", "K", "M", "G", "T", "P")
_STEP = 1024
# By what something is named, the first that it has; a volume by that of its owner before it.
NAMING = ("id", "name", "serial", "pid", "path", "volume", "filesystem")
_AGES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def escaped(text: str | bytes) -> str:
    """Text with every control character written out."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def print_document(form: str, value: Any) -> None:
    """For programs: `json` or `yaml`, as a document; `name`, each by what it is named by in the next command."""
    if form == "yaml":
        click.echo(yaml_of(value), nl=False)
    elif form == "name":
        for name in names_of(value):
            click.echo(escaped(name))
    else:
        click.echo(json.dumps(value, indent=2, ensure_ascii=not sys.stdout.isatty()))


def yaml_of(value: Any) -> str:
    """A document of YAML, if the library that it needs is installed."""
    try:
        from yaml import safe_dump
    except ModuleNotFoundError as error:
        from sysproc_client._core.errors import FailedPrecondition

        raise FailedPrecondition(
            "YAML is written with the library `pyyaml`, which is not installed.",
            reason="NO_YAML",
            resolution="Install it beside the command: pip install pyyaml; or take -o json, which is YAML as well.",
        ) from error
    return str(safe_dump(value, sort_keys=False, allow_unicode=sys.stdout.isatty(), default_flow_style=False))


def names_of(value: Any) -> Iterator[str]:
    """Each thing in a document by its name. UsageError where nothing in it has one."""
    if isinstance(value, list):
        for one in value:
            yield from names_of(one)
    elif isinstance(value, str):
        yield value
    else:
        key = next((key for key in NAMING if value.get(key) not in (None, "")), None)
        if key is None:
            raise click.UsageError("`-o name` is for what has a name; take -o json.")
        owner = value.get("owner") if key == "name" else None
        yield f"{owner}/{value[key]}" if owner else str(value[key])
        yield from names_of(value.get("children", []))


def human_size(value: int | None) -> str:
    """256M; a dash for none."""
    if value is None:
        return "-"
    amount, unit = float(value), 0
    while amount >= _STEP and unit < len(_UNITS) - 1:
        amount, unit = amount / _STEP, unit + 1
    return f"{amount:.0f}{_UNITS[unit]}" if amount == int(amount) else f"{amount:.1f}{_UNITS[unit]}"


def human_age(moment: datetime) -> str:
    """How long ago: 3m."""
    seconds = max(0, int(time.time() - moment.timestamp()))
    return next((f"{seconds // size}{unit}" for size, unit in _AGES if seconds >= size), "0s")


def iso(moment: datetime) -> str:
    """For programs: RFC 3339, in UTC."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def limits_of(box: "Container") -> dict[str, int | None]:
    """The limits; None where there is none."""
    limits = box.message.limits
    given = {field.name: value for field, value in limits.ListFields()}
    return {field.name: given.get(field.name) for field in limits.DESCRIPTOR.fields}


def as_json(box: "Container") -> dict[str, Any]:
    """A container for programs."""
    message = box.message
    how = message.exit.WhichOneof("exit")
    return {
        "id": box.id,
        "name": box.name,
        "parent": box.parent_id,
        "state": box.state,
        "reason": message.reason,
        "exit": {how: getattr(message.exit, how)} if how else None,
        "oom_killed": message.oom_killed,
        "image": message.image,
        "hostname": message.hostname,
        "limits": limits_of(box),
        "labels": dict(message.labels),
        "environment": {
            variable.name.decode("utf-8", "backslashreplace"): variable.value.decode("utf-8", "backslashreplace")
            for variable in message.environment
        },
        "created": iso(box.created),
        "expires": iso(message.expire_time.ToDatetime(tzinfo=timezone.utc))
        if message.HasField("expire_time")
        else None,
        "idle_timeout_s": message.idle_timeout.ToMilliseconds() / 1000 if message.HasField("idle_timeout") else None,
        "delegate": message.delegate,
        "api_users": "all" if message.api_users.all else list(message.api_users.uids),
        "etag": message.etag,
    }
