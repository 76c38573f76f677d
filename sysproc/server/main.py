"""The command `sysprocd`: options from the settings, then the daemon.

Everything heavy is imported when it is needed: --help is quick. What the settings are is in `sysproc.server.settings`,
what happens then in `sysproc.server.daemon`.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from sysproc.errors import SysprocError
from sysproc.server.manual import EPILOG
from sysproc.server.settings import CONFIG, SETTINGS, Decided, decide, flag, variable

LISTS = frozenset({"listen"})


def options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each setting, without a default: what is not given is decided by the cascade."""
    for name, setting in reversed(list(SETTINGS.items())):
        help_text = f"{setting.help}  [{variable(name)}]"
        command = click.option(
            flag(name), name, metavar=setting.metavar, help=help_text, multiple=name in LISTS, default=None
        )(command)
    return command


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EPILOG,
)
@options
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help=f"TOML file. Default: {CONFIG}, if there."
)
@click.option("--print-settings", is_flag=True, help="Show each setting and where its value came from, then end.")
@click.version_option(package_name="sysproc", prog_name="sysprocd", message="%(prog)s %(version)s")
def main(config: Path | None, print_settings: bool, **flags: Any) -> None:
    """The sysproc daemon: hierarchical containers as a gRPC service."""
    try:
        decided = decide({name: value for name, value in flags.items() if value not in (None, ())}, os.environ, config)
        if print_settings:
            click.echo("\n".join(decided.lines()))
            return
        serve(decided)
    except SysprocError as error:
        click.echo(f"sysprocd: {error}", err=True)
        sys.exit(1)


def serve(decided: Decided) -> None:
    """Run the daemon to its end."""
    import uvloop

    from sysproc.server import daemon, logs
    from sysproc.server.notify import Notifier

    logs.configure(decided.settings.log_format, decided.settings.log_level)
    uvloop.run(daemon.run(decided.settings, Notifier()))


if __name__ == "__main__":
    main()
