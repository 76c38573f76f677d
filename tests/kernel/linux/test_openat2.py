"""openat2(2) while somebody renames: the kernel then says EAGAIN at a `..`, which is no answer."""

import os
import threading
from pathlib import Path

from sysproc.linux.files import RESOLVE_IN_ROOT, openat2

WALKS = 20_000


def test_a_path_with_dots_is_found_while_others_rename(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    over = threading.Event()

    def rename() -> None:
        while not over.is_set():
            for old, new in (("other", "renamed"), ("renamed", "other")):
                os.rename(tmp_path / old, tmp_path / new)

    renaming = threading.Thread(target=rename)
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    renaming.start()
    try:
        for _ in range(WALKS):
            os.close(openat2(root, "a/b/../../a/b/../b", os.O_PATH, resolve=RESOLVE_IN_ROOT))
    finally:
        over.set()
        renaming.join()
        os.close(root)
