"""Failpoints that are armed by a file: each process acts as the file says at that moment.

What each of them is there for is tested in tests/crash.
"""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from sysproc.failpoints import failpoint
for line in iter(input, "end"):
    try:
        failpoint(line)
        print("went on", flush=True)
    except OSError as failure:
        print(failure.filename, flush=True)
"""


def test_what_is_armed_changes_with_the_file_and_stays_when_it_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "failpoints"
    command, variable = [sys.executable, "-c", PROGRAM], {"SYSPROC_FAILPOINTS": f"@{file}"}
    with subprocess.Popen(command, env=variable, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None

        def said(name: str) -> str:
            assert process.stdin is not None and process.stdout is not None
            print(name, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        assert said("a") == "went on"
        replace(file, "a=raise")
        assert [said("a"), said("b")] == ["a", "went on"]
        replace(file, "b=1*raise")
        assert [said("a"), said("b"), said("b")] == ["went on", "b", "went on"]
        replace(file, "a=raise")
        assert said("a") == "a"
        file.unlink()
        assert said("a") == "a"
        print("end", file=process.stdin, flush=True)


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)
