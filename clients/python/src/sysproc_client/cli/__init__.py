"""The `sysproc` command: `start.main`, and one module a family of subcommands, imported when one of them is used."""
