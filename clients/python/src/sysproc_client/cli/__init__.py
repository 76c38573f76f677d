"""The `sysproc` command: `main`, and one module a family of subcommands, imported when one of them is used."""

from sysproc_client.cli.main import main

__all__ = ["main"]
