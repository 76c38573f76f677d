"""C programs that tests run: static, compiled once for each version of the source, kept below `.cache/`.

A program is one file, or a directory `native` with a `main.c`: all files of that are one program, named after the
directory above. A virtual machine has no compiler: it gets what was compiled before it started (`tests.vm.payload`).
"""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / ".cache" / "compiled"


def compiled(source: Path) -> Path | None:
    """The program that was made of a source, file or directory; None if there is no compiler to make it with."""
    name = source.parent.name if source.is_dir() else source.stem
    files = sorted(source.glob("*.[ch]")) if source.is_dir() else [source]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    program = DIRECTORY / f"{name}-{platform.machine()}-{digest}"
    if not program.exists():
        compiler = shutil.which("gcc")
        if compiler is None:
            return None
        compile_to(program, compiler, [file for file in files if file.suffix == ".c"])
    return program


def compile_to(program: Path, compiler: str, files: Sequence[Path]) -> None:
    """Compile it; it appears whole or not at all."""
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    subprocess.run([compiler, "-O1", "-static", "-w", "-o", unfinished, *files], check=True)
    unfinished.replace(program)


def compile_all() -> list[Path]:
    """Every program that a test may want."""
    files = sorted((ROOT / "tests").rglob("*.c"))
    sources = {file.parent if (file.parent / "main.c").exists() else file for file in files}
    programs = (compiled(source) for source in sorted(sources))
    return [program for program in programs if program]
