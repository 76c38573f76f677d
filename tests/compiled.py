"""C programs that tests run: static, compiled once for each version of the source, kept below `.cache/`.

A virtual machine has no compiler: it gets what was compiled before it started (`tests.vm.payload`).
"""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIRECTORY = ROOT / ".cache" / "compiled"


def compiled(source: Path) -> Path | None:
    """The program that was made of a source file; None if there is no compiler to make it with."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    program = DIRECTORY / f"{source.stem}-{platform.machine()}-{digest}"
    if not program.exists():
        compiler = shutil.which("gcc")
        if compiler is None:
            return None
        compile_to(program, compiler, source)
    return program


def compile_to(program: Path, compiler: str, source: Path) -> None:
    """Compile it; it appears whole or not at all."""
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_name(f"{program.name}.{os.getpid()}")
    subprocess.run([compiler, "-O1", "-static", "-w", "-o", unfinished, source], check=True)
    unfinished.replace(program)


def compile_all() -> list[Path]:
    """Every program that a test may want."""
    programs = (compiled(source) for source in sorted((ROOT / "tests").rglob("*.c")))
    return [program for program in programs if program]
