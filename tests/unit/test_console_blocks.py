"""The reader of pages: what is a command, what is compared with it."""

import pytest

from tests.e2e.console_blocks import Command, commands_of, is_like

PAGE = """\
Text, and `# no command`.

```console
# first
one
two
$ second \\
> with more
# third
```

```sh
# no console
```
"""


def test_a_page_is_read_as_commands_with_what_they_print() -> None:
    assert commands_of(PAGE) == [
        Command(4, "first", "one\ntwo\n"),
        Command(7, "second \\\nwith more", ""),
        Command(9, "third", ""),
    ]


@pytest.mark.parametrize(
    ("said", "shown", "alike"),
    [
        ("one\n", "one\n", True),
        ("one", "one\n", True),
        ("", "", True),
        ("one\n", "", False),
        ("", "one\n", False),
        ("id 4a1d ok\n", "id … ok\n", True),
        ("id 4a1d no\n", "id … ok\n", False),
        ("a\nb\nc\n", "a\n…\nc\n", True),
        ("a\nc\n", "a\n…\nc\n", True),
        ("a\nb\n", "a\n…\nc\n", False),
        ("1.5 GiB  \n", "1.5 GiB\n", True),
        ("1x5 GiB\n", "1.5 GiB\n", False),
        ("web   box\n", "web box\n", True),
        ("webbox\n", "web box\n", False),
        ("0123456789abcdef 10s /dev/loop12\n", "9ca4a7755a3edf88 2s /dev/loop4\n", True),
        ("0123456789abcdeg 10s\n", "9ca4a7755a3edf88 2s\n", False),
    ],
)
def test_what_is_printed_is_what_is_shown_or_it_is_not(said: str, shown: str, alike: bool) -> None:
    assert is_like(said, shown) is alike
