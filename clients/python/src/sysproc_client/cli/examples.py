"""An example or more of each subcommand: what `--help` and the man pages end with. A test parses each of them.

What the options mean is said at the options; what is printed, in README.
"""

import click

from sysproc_client.cli.manual import EXIT_STATUS

# The whole of a subcommand's name, and lines that a shell takes.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "create": (
        "sysproc create --name web --memory 256M --cpus 0.5",
        "sysproc create --parent web --name worker --ttl 15m -o json",
        "sysproc create --name web --size 20G --dry-run",
    ),
    "list": ("sysproc list -o wide", "sysproc list --label team=a -o name"),
    "tree": ("sysproc tree",),
    "inspect": ("sysproc inspect web/worker", "sysproc inspect web -o yaml"),
    "update": ("sysproc update web --memory 512M --pids none", "sysproc update web --ttl 1h"),
    "start": ("sysproc start web",),
    "stop": ("sysproc stop --grace 30 web web/worker",),
    "freeze": ("sysproc freeze web",),
    "thaw": ("sysproc thaw web",),
    "destroy": ("sysproc destroy --dry-run web", "sysproc destroy web"),
    "exec": (
        "sysproc exec -it web -- sh",
        "sysproc exec -u 1000 -w /srv -e LANG=C web -- ls -l",
        "tar c . | sysproc exec -i web -- tar x -C /srv",
    ),
    "run": ("echo hello | sysproc run -i --pids 64 -- tr a-z A-Z", "sysproc run --keep --name box -- true"),
    "attach": ("sysproc attach web", "sysproc attach web 0f8c4a52-9d1e-4e0b-9f3a-3a1f6a1c2b7d"),
    "ps": ("sysproc ps web", "sysproc ps web -o wide"),
    "image import": (
        "sysproc image import debian ./root.tar",
        "mmdebstrap --variant=minbase bookworm - | sysproc image import debian -",
    ),
    "image list": ("sysproc image list",),
    "image inspect": ("sysproc image inspect debian", "sysproc image inspect debian -o yaml"),
    "image delete": ("sysproc image delete debian",),
    "volume create": (
        "sysproc volume create data --size 1G --owner web",
        "sysproc volume create safe --size 64M --encrypt fs --passphrase-file secret",
        "sysproc volume create disk --part boot:ext4:64M --part root:xfs:1G",
        "sysproc volume create app --fs erofs --compress zstd --from ./app",
    ),
    "volume list": ("sysproc volume list -o wide", "sysproc volume list --owner web -o json"),
    "volume inspect": ("sysproc volume inspect web/data",),
    "volume grow": ("sysproc volume grow web/data --size 2G",),
    "volume shrink": ("sysproc volume shrink web/data --size 500M",),
    "volume clone": ("sysproc volume clone web/data copy",),
    "volume snapshot": ("sysproc volume snapshot web/data before-upgrade",),
    "volume export": ("sysproc volume export web/data data.img.zst", "sysproc volume export web/data - > data.img"),
    "volume import": ("sysproc volume import data data.img.zst --owner web",),
    "volume check": (
        "sysproc volume check web/data",
        "sysproc volume check web/data --repair",
        "sysproc volume check web/safe --passphrase-file key",
    ),
    "volume attach": ("sysproc volume attach web data:root --ro",),
    "volume detach": ("sysproc volume detach web data:root",),
    "volume trust": ("sysproc volume trust web/data",),
    "volume lock": ("sysproc volume lock web/safe --force",),
    "volume passwd": (
        "sysproc volume passwd web/safe",
        "sysproc volume passwd web/safe --add --passphrase-file old --new-key-file new",
    ),
    "volume delete": ("sysproc volume delete web/data",),
    "mount": ("sysproc mount web data /srv/data", "sysproc mount web/worker web/data /data --ro -o noexec"),
    "umount": ("sysproc umount web /srv/data",),
    "cert init": ("sysproc cert init --host box.example.org",),
    "cert issue": ("sysproc cert issue --host --out laptop", "sysproc cert issue --container 9ca4a7755a3edf88"),
    "cert revoke": ("sysproc cert revoke laptop.pem",),
    "cert list": ("sysproc cert list",),
    "whoami": ("sysproc whoami",),
    "info": ("sysproc info", "sysproc info -o json"),
    "completion": ("source <(sysproc completion bash)",),
    "doctor": ("sysproc doctor", "sysproc doctor -o json"),
    "version": ("sysproc version",),
}


def with_examples(command: click.Command, name: str) -> click.Command:
    """The same command, whose help ends with its examples; of a group each of its commands."""
    if isinstance(command, click.Group):
        for word, one in command.commands.items():
            with_examples(one, f"{name} {word}")
    elif name in EXAMPLES:
        lines = "\n".join(f"  {line}" for line in EXAMPLES[name])
        command.epilog = "\n".join([*filter(None, [EXIT_STATUS.get(name)]), f"\b\nExamples:\n{lines}"])
    return command
