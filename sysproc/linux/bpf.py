"""bpf(2): loading a program, attaching it to a cgroup, and the few instructions that our programs are made of.

Only eBPF; the classic BPF of seccomp is in `sysproc.isolation.seccomp_assembler`. What a program decides is in
`sysproc.isolation.cgroups.controllers.devices`.
"""

import errno
import os
import struct
from collections.abc import Sequence

from sysproc.linux.libc import address, buffer, number_of, syscall

BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_DETACH, BPF_PROG_GET_FD_BY_ID, BPF_PROG_QUERY = 5, 8, 9, 13, 16
BPF_PROG_TYPE_CGROUP_DEVICE = 15
BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI, BPF_F_REPLACE = 1 << 1, 1 << 2

# struct bpf_cgroup_dev_ctx of linux/bpf.h: access_type (access << 16 | type), major, minor.
BPF_DEVCG_ACC_MKNOD, BPF_DEVCG_ACC_READ, BPF_DEVCG_ACC_WRITE = 1, 2, 4
BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR = 1, 2

_LDX_MEM_W, _ALU64_MOV_K, _ALU_AND_K = 0x61, 0xB7, 0x54
_JMP_JEQ_K, _JMP_JNE_K, _JMP_JSET_K, _EXIT = 0x15, 0x55, 0x45, 0x95

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD = struct.Struct("=IIQQIIQII16s")
_ATTACH = struct.Struct("=IIIII")
_BY_ID = struct.Struct("=III")
_QUERY = struct.Struct("=IIIIQI")
_LOG_BYTES = 1 << 16
_MOST_PROGRAMS = 64  # BPF_CGROUP_MAX_PROGS


def _instruction(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, src << 4 | dst, off, imm)


def load_word(dst: int, src: int, off: int) -> bytes:
    """BPF_LDX | BPF_MEM | BPF_W: dst = *(u32 *)(src + off)."""
    return _instruction(_LDX_MEM_W, dst, src, off)


def move(dst: int, imm: int) -> bytes:
    """BPF_ALU64 | BPF_MOV | BPF_K: dst = imm."""
    return _instruction(_ALU64_MOV_K, dst, imm=imm)


def mask(dst: int, imm: int) -> bytes:
    """BPF_ALU | BPF_AND | BPF_K: dst &= imm, 32 bits."""
    return _instruction(_ALU_AND_K, dst, imm=imm)


def jump_if_equal(dst: int, imm: int, off: int) -> bytes:
    """BPF_JMP | BPF_JEQ | BPF_K: skip `off` instructions if dst == imm."""
    return _instruction(_JMP_JEQ_K, dst, off=off, imm=imm)


def jump_if_not_equal(dst: int, imm: int, off: int) -> bytes:
    """BPF_JMP | BPF_JNE | BPF_K: skip `off` instructions if dst != imm."""
    return _instruction(_JMP_JNE_K, dst, off=off, imm=imm)


def jump_if_any_bit(dst: int, imm: int, off: int) -> bytes:
    """BPF_JMP | BPF_JSET | BPF_K: skip `off` instructions if dst & imm."""
    return _instruction(_JMP_JSET_K, dst, off=off, imm=imm)


def exit_with(value: int) -> bytes:
    """The program's result in r0, and its end."""
    return move(0, value) + _instruction(_EXIT)


def _bpf(command: int, attributes: bytearray, target: str) -> int:
    memory = buffer(bytes(attributes))
    result = syscall("bpf", number_of("bpf"), command, memory, len(attributes), target=target)
    attributes[:] = memory.raw
    return result


def prog_load(prog_type: int, program: bytes, *, name: str) -> int:
    """BPF_PROG_LOAD, Linux 3.18: the program's fd, close-on-exec; the caller owns it.

    EPERM without CAP_BPF or CAP_SYS_ADMIN on the host, EINVAL on a kernel that lacks the program type. If the
    verifier refuses it, its words are a note on the error.
    """
    code, license_ = buffer(program), buffer(b"MIT\0")

    def attributes(log_level: int, log_size: int, log: int) -> bytearray:
        count = len(program) // _INSTRUCTION.size
        words = (prog_type, count, address(code), address(license_), log_level, log_size, log, 0, 0, name.encode()[:15])
        return bytearray(_LOAD.pack(*words))

    try:
        return _bpf(BPF_PROG_LOAD, attributes(0, 0, 0), f"load {name}")
    except OSError as failure:
        if failure.errno not in (errno.EACCES, errno.EINVAL):
            raise
        log = buffer(_LOG_BYTES)
        try:
            return _bpf(BPF_PROG_LOAD, attributes(1, _LOG_BYTES, address(log)), f"load {name}")
        except OSError as refused:
            refused.add_note(log.value.decode(errors="replace"))
            raise


def prog_attach(cgroup_fd: int, prog_fd: int, attach_type: int, flags: int = BPF_F_ALLOW_MULTI) -> None:
    """BPF_PROG_ATTACH, Linux 4.10: it goes with the cgroup. With BPF_F_ALLOW_MULTI (4.15) all above hold too."""
    _bpf(BPF_PROG_ATTACH, bytearray(_ATTACH.pack(cgroup_fd, prog_fd, attach_type, flags, 0)), "attach")


def prog_put(cgroup_fd: int, prog_fd: int, attach_type: int) -> None:
    """Attach it in place of the one that is there, if there is one: BPF_F_REPLACE, Linux 5.6."""
    found = prog_ids(cgroup_fd, attach_type)
    if not found:
        prog_attach(cgroup_fd, prog_fd, attach_type)
        return
    before = _bpf(BPF_PROG_GET_FD_BY_ID, bytearray(_BY_ID.pack(found[0], 0, 0)), "program by id")
    try:
        flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE
        _bpf(BPF_PROG_ATTACH, bytearray(_ATTACH.pack(cgroup_fd, prog_fd, attach_type, flags, before)), "replace")
    finally:
        os.close(before)


def prog_query(cgroup_fd: int, attach_type: int) -> int:
    """BPF_PROG_QUERY, Linux 4.15: how many programs are attached to this very cgroup."""
    return len(prog_ids(cgroup_fd, attach_type))


def prog_ids(cgroup_fd: int, attach_type: int) -> Sequence[int]:
    """The same: their ids."""
    ids = buffer(4 * _MOST_PROGRAMS)
    attributes = bytearray(_QUERY.pack(cgroup_fd, attach_type, 0, 0, address(ids), _MOST_PROGRAMS))
    _bpf(BPF_PROG_QUERY, attributes, "query")
    count = int(_QUERY.unpack(attributes)[5])
    return struct.unpack_from(f"={count}I", ids.raw)
