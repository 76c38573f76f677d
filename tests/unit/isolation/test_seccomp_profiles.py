"""Filters as programs: for architectures that this machine is not, and for every number there is.

That the kernel reads them the same way is shown in tests/kernel/isolation/test_seccomp.py, by loading them.
"""

import errno
import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysproc.errors import Unimplemented
from sysproc.isolation import seccomp_assembler as asm
from sysproc.isolation.seccomp_profiles import _HOST_ONLY, DEFAULT, PROFILES, STRICT, compile_profile
from sysproc.isolation.syscall_numbers import AARCH64, I386, LAST_REVIEWED, X86_64, Architecture, names, number_on

ALLOWED, ERRNO = 0x7FFF0000, 0x00050000
ARM = 0x40000028
WORDS = st.integers(0, (1 << 32) - 1)

HEADERS = {
    X86_64: Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    I386: Path("/usr/include/x86_64-linux-gnu/asm/unistd_32.h"),
    AARCH64: Path("/usr/include/asm-generic/unistd.h"),
}


def answer(program: bytes, nr: int, audit: int, args: Sequence[int] = ()) -> int:
    """What the filter says to a call: classic BPF, as far as our filters use it (bpf(4) of BSD)."""
    data = struct.pack("<IIQ6Q", nr, audit, 0, *args, *[0] * (6 - len(args)))
    code = list(struct.iter_unpack("<HBBI", program))
    pc = accumulator = 0
    while True:
        op, jt, jf, k = code[pc]
        pc += 1
        if op == 0x06:
            return int(k)
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            pc += k
        else:
            pc += jt if {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: accumulator & k}[op] else jf


def refused_with(number: int) -> int:
    return ERRNO | number


@pytest.mark.parametrize("architecture", HEADERS, ids=lambda one: one.name)
def test_numbers_are_those_of_the_headers(architecture: Architecture) -> None:
    if not HEADERS[architecture].exists():
        pytest.skip("linux-libc-dev is not installed")
    text = HEADERS[architecture].read_text()
    numbers = {found[1]: int(found[2]) for found in re.finditer(r"#define __NR_(\w+)\s+(\d+)\s*$", text, re.MULTILINE)}
    if architecture is AARCH64:
        del numbers["clock_settime64"]  # of 32-bit architectures
    assert {name: number_on(name, architecture) for name in names()} == {name: numbers.get(name) for name in names()}


def test_every_call_of_the_table_is_ruled_somewhere() -> None:
    assert {*DEFAULT, *STRICT} == names()


@pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda one: one.name)
def test_all_numbers_get_their_answer(machine: Architecture) -> None:
    for profile, rules in (("default", DEFAULT), ("strict", STRICT)):
        program = compile_profile(profile, machine.name)
        ruled = {number_on(name, machine) for name in rules}
        for nr in range(600):
            if nr not in ruled:
                unknown = profile == "strict" and nr > LAST_REVIEWED
                expected = refused_with(errno.ENOSYS) if unknown else ALLOWED
                assert answer(program, nr, machine.audit) == expected
        for name in _HOST_ONLY:
            if (number := number_on(name, machine)) is not None:
                assert answer(program, number, machine.audit) == refused_with(errno.EPERM)


@given(
    st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 32) - 1), st.lists(st.integers(0, (1 << 64) - 1), max_size=6)
)
def test_any_call_of_any_abi_is_answered(nr: int, audit: int, args: list[int]) -> None:
    for profile in ("default", "strict"):
        for machine in (X86_64, AARCH64):
            said = answer(compile_profile(profile, machine.name), nr, audit, args)
            assert said == ALLOWED or said & 0xFFFF0000 == ERRNO
            if audit not in (machine.audit, I386.audit):
                assert said == refused_with(errno.ENOSYS)


def test_32_bit_arm_is_refused_on_aarch64() -> None:
    assert answer(compile_profile("default", "aarch64"), 20, ARM) == refused_with(errno.ENOSYS)


def test_aarch64_checks_arguments_too() -> None:
    program = compile_profile("strict", "aarch64")
    vsock = answer(program, 198, AARCH64.audit, [40, 1, 0])
    nested = answer(program, 220, AARCH64.audit, [0x10000000])
    assert (vsock, nested) == (refused_with(errno.EAFNOSUPPORT), refused_with(errno.EPERM))


def test_open_is_no_filter() -> None:
    assert compile_profile("open", "riscv64") == b""


def test_a_machine_without_a_table_is_said_so() -> None:
    with pytest.raises(Unimplemented, match="riscv64"):
        compile_profile("default", "riscv64")


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="default, strict, open"):
        compile_profile("Default", "x86_64")


@pytest.mark.parametrize("profile", [name for name, assemble in PROFILES.items() if assemble])
def test_filters_fit_the_kernel(profile: str) -> None:
    """BPF_MAXINSNS of linux/bpf_common.h."""
    assert asm.count(compile_profile(profile, "x86_64")) < 4096


@given(
    st.dictionaries(st.integers(0, (1 << 32) - 1), st.integers(1, 4000), max_size=400), st.integers(0, (1 << 32) - 1)
)
def test_a_search_finds_what_the_table_has(table: dict[int, int], other: int) -> None:
    """Also a table that is too long for a conditional jump."""
    pieces = {value: asm.refuse(number) for value, number in table.items()}
    program = asm.load(asm.NR) + asm.search(pieces, asm.ALLOW)
    for value in [*list(table)[:5], *list(table)[-5:], other]:
        expected = refused_with(table[value]) if value in table else ALLOWED
        assert answer(program, value, 0) == expected
