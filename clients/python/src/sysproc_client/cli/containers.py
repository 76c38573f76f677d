"""Subcommands for containers: create, list, tree, inspect, update, start, stop, freeze, thaw, destroy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sysproc_client.cli.main import Options
from sysproc_client.cli.options import creation_options, pairs
from sysproc_client.cli.output import as_json, escaped, human_age, human_size, limits_of, print_document
from sysproc_client.cli.several import each, printed_at_end
from sysproc_client.cli.tables import coloured, print_table

if TYPE_CHECKING:
    from sysproc_client.container import Container

COLUMNS = ("id", "name", "parent", "state", "image", "age")
WIDE = ("limits", "hostname", "labels")
refs = click.argument("refs", nargs=-1, required=True, metavar="REF...")


@click.command("create")
@creation_options
@click.option("--no-start", is_flag=True, help="Leave it stopped.")
@click.option(
    "--dry-run", is_flag=True, help="Only check whether it could be made; with -o json, prints what it would be."
)
@click.pass_obj
def create_command(options: Options, /, no_start: bool, dry_run: bool, **wanted: Any) -> None:
    """Make a container and start it; prints its id."""
    from sysproc_client.cli.interrupts import finishing

    if dry_run:
        check_only(options, no_start, wanted)
        return
    with options.connect() as client, finishing("the container"):
        box = client.create(**wanted, start=not no_start)
        if options.for_programs:
            print_document(options.output, as_json(box))
        else:
            click.echo(box.id)


def check_only(options: Options, no_start: bool, wanted: Mapping[str, Any]) -> None:
    """Whether it could be made; what it has only once it is made is null for programs."""
    with options.connect() as client:
        box = client.create(**wanted, start=not no_start, validate_only=True)
    if options.for_programs and options.output != "name":
        print_document(options.output, {**as_json(box), "id": None, "state": None, "created": None})


@click.command("list")
@click.option("--label", "labels", multiple=True, callback=pairs, metavar="K=V", help="Only those; `K=` for any value.")
@click.pass_obj
def list_command(options: Options, labels: dict[str, str]) -> None:
    """List all containers, oldest first."""
    with options.connect() as client:
        boxes = client.list(labels=labels)
    if options.for_programs:
        print_document(options.output, [as_json(box) for box in boxes])
        return
    print_table((*COLUMNS, *(WIDE if options.wide else ())), [row_of(box, wide=options.wide) for box in boxes])


def row_of(box: "Container", *, wide: bool) -> tuple[str, ...]:
    """A line of the list."""
    row = (box.id, box.name, box.parent_id, box.state, box.message.image, human_age(box.created))
    labels = ",".join(f"{key}={value}" for key, value in box.message.labels.items())
    return (*row, limits_shown(limits_of(box)), box.message.hostname, labels) if wide else row


def limits_shown(limits: Mapping[str, int | None]) -> str:
    """Those that there are, for people."""
    return ", ".join(f"{name} {shown(name, value)}" for name, value in limits.items() if value)


@click.command("tree")
@click.pass_obj
def tree_command(options: Options) -> None:
    """Show the containers as a tree; as JSON, each with its `children`."""
    with options.connect() as client:
        boxes = client.list()
    if options.for_programs:
        print_document(options.output, nested(boxes))
        return
    click.echo("host")
    for guide, box in drawn(boxes):
        click.echo(click.style(guide, dim=True) + label(box))


def drawn(boxes: Sequence["Container"]) -> Iterator[tuple[str, "Container"]]:
    """Each in the order of the tree, with the lines that lead to it."""
    known = {box.id for box in boxes}
    below: dict[str, list[Container]] = {}
    for box in boxes:
        below.setdefault(box.parent_id if box.parent_id in known else "", []).append(box)
    waiting = [("", below[""])] if boxes else []
    while waiting:
        indent, (box, *siblings) = waiting.pop()
        if siblings:
            waiting.append((indent, siblings))
        yield indent + ("├── " if siblings else "└── "), box
        if box.id in below:
            waiting.append((indent + ("│   " if siblings else "    "), below[box.id]))


def nested(boxes: Sequence["Container"]) -> list[dict[str, Any]]:
    """What is at the top, each with what is below it. Parents come before their children."""
    top: list[dict[str, Any]] = []
    children = {"": top}
    for box in boxes:
        children[box.id] = []
        children.get(box.parent_id, top).append({**as_json(box), "children": children[box.id]})
    return top


def label(box: "Container") -> str:
    """One container as a line of the tree."""
    words = [click.style(escaped(box.name or box.id), bold=True), coloured(box.state)]
    return " ".join([*words, *([click.style(f" {box.id}", dim=True)] if box.name else [])])


@click.command("inspect")
@click.argument("ref")
@click.pass_obj
def inspect_command(options: Options, ref: str) -> None:
    """Show everything about a container."""
    with options.connect() as client:
        box, path = client.get(ref), client.path(ref)
    told = {"path": path, **as_json(box)}
    if options.for_programs:
        print_document(options.output, told)
        return
    told["limits"] = limits_shown(told["limits"])
    told["created"] = f"{told['created']} ({human_age(box.created)} ago)"
    for name, value in told.items():
        click.echo(f"{name:12} {escaped(readable(value))}".rstrip())


def readable(value: Any) -> str:
    """A value of the JSON form for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={one}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def shown(name: str, value: int) -> str:
    """A limit for people."""
    return human_size(value) if name.endswith("bytes") else str(value)


@click.command("update")
@click.argument("ref")
@click.option("--memory", metavar="SIZE", help="256M, or `none` to lift the limit.")
@click.option("--cpus", metavar="N", help="0.5, or `none`.")
@click.option("--pids", metavar="N", help="64, or `none`.")
@click.option("--descendants", metavar="N", help="Containers below it; or `none`.")
@click.option("--depth", metavar="N", help="Levels below it; or `none`.")
@click.option("--storage", metavar="SIZE", help="Of it and all below; or `none`.")
@click.option("--ttl", metavar="TIME", help="From now on: 15m; or `none`.")
@click.option("--idle-timeout", metavar="TIME", help="15m, or `none`.")
@click.option(
    "--label", "labels", multiple=True, callback=pairs, metavar="K=V", help="Replaces all labels; repeatable."
)
@click.option("--clear-labels", is_flag=True, help="Leave no label.")
@click.option("--etag", default="", help="Only if it has not changed since it was read.")
@click.pass_obj
def update_command(
    options: Options, /, ref: str, labels: dict[str, str], clear_labels: bool, etag: str, **limits: str | None
) -> None:
    """Change limits, lifetimes and labels of a container, running or not."""
    from sysproc_client._core.values import seconds

    clear = [name for name, value in limits.items() if value == "none"]
    changed: dict[str, Any] = {name: value for name, value in limits.items() if value and value != "none"}
    readers: dict[str, Callable[[str], Any]] = {
        **dict.fromkeys(("pids", "descendants", "depth"), whole_number),
        **dict.fromkeys(("ttl", "idle_timeout"), seconds),
    }
    changed |= {name: readers[name](value) for name, value in changed.items() if name in readers}
    if labels and clear_labels:
        raise click.UsageError("--label replaces all labels, --clear-labels leaves none: give one of them.")
    if labels or clear_labels:
        changed["labels"] = {} if clear_labels else labels
    if not changed and not clear:
        raise click.UsageError("Nothing to change: give a limit, --ttl, --idle-timeout or --label.")
    with options.connect() as client:
        box = client.get(ref).update(**changed, clear=clear, etag=etag)
    if options.for_programs:
        print_document(options.output, as_json(box))


def whole_number(text: str) -> int:
    """A number of processes, or of containers."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def change_each(options: Options, refs: Sequence[str], verb: Callable[["Container"], "Container"]) -> None:
    """Do something with each container that is named; with `-o json`, print what has become of them."""
    changed: list[dict[str, Any]] = []
    with options.connect() as client, printed_at_end(options, changed):
        each(refs, lambda ref: changed.append(as_json(verb(client.get(ref)))))


@click.command("start")
@refs
@click.pass_obj
def start_command(options: Options, refs: Sequence[str]) -> None:
    """Start stopped containers."""
    change_each(options, refs, lambda box: box.start())


@click.command("stop")
@refs
@click.option("--grace", type=float, metavar="SECONDS", help="How long processes have after SIGTERM. Default: 10.")
@click.pass_obj
def stop_command(options: Options, refs: Sequence[str], grace: float | None) -> None:
    """Stop containers, not what is below them; their files stay."""
    change_each(options, refs, lambda box: box.stop(grace))


@click.command("freeze")
@refs
@click.pass_obj
def freeze_command(options: Options, refs: Sequence[str]) -> None:
    """Suspend all processes of containers, and of everything below them."""
    change_each(options, refs, lambda box: box.freeze())


@click.command("thaw")
@refs
@click.pass_obj
def thaw_command(options: Options, refs: Sequence[str]) -> None:
    """Let frozen containers go on."""
    change_each(options, refs, lambda box: box.thaw())


@click.command("destroy")
@refs
@click.option("--dry-run", is_flag=True, help="Only show what would be destroyed.")
@click.pass_obj
def destroy_command(options: Options, refs: Sequence[str], dry_run: bool) -> None:
    """Destroy containers and everything below them; prints the ids, deepest first."""
    gone: list[str] = []

    def destroy(ref: str) -> None:
        if ref in gone:
            return  # it went with one above it
        for container_id in client.get(ref)._destroy(validate_only=dry_run):
            if container_id not in gone:
                gone.append(container_id)
                if not options.for_programs:
                    click.echo(container_id)

    with options.connect() as client, printed_at_end(options, gone):
        each(refs, destroy)
