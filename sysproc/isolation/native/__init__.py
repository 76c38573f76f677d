"""The one static C program: init of each container, its keeper outside, and the supervisor of each exec.

Here are its sources, how it is compiled, and where it is. What it is told and what it publishes is drawn in its
headers and mirrored in `sysproc.isolation.exec_spec` and `sysproc.isolation.exec_state`. The build hook loads this
module by itself, so it imports nothing of the project.
"""

import os
import shlex
import subprocess
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_PROGRAM = _HERE / "sysproc-native"
_FLAGS = (
    "-std=c11",
    "-Os",
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-tree-loop-distribute-patterns",
    "-fno-asynchronous-unwind-tables",
    "-U_FORTIFY_SOURCE",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",
    "-Wl,--build-id=none",
    "-s",
)


def program_path() -> Path:
    """Where the compiled program is; raises FileNotFoundError where it was not built."""
    if not _PROGRAM.exists():
        raise FileNotFoundError(2, "the C program was not built: run `make native`", str(_PROGRAM))
    return _PROGRAM


def build(target: Path = _PROGRAM) -> Path:
    """Compile the program, with $CC or gcc and the static C library (Debian: gcc, libc6-dev).

    The file appears whole or not at all; running containers keep the one that they were started with. Raises
    CalledProcessError with the compiler's words on stderr.
    """
    compiler = shlex.split(os.environ.get("CC", "gcc"))
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    sources = sorted(str(source) for source in _HERE.glob("*.c"))
    try:
        subprocess.run([*compiler, *_FLAGS, "-o", str(unfinished), *sources], check=True)
        unfinished.chmod(0o755)  # inits are of other users, whatever the umask here
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
