"""From a passphrase to the key of a key slot: argon2id (argon2i, PBKDF2) by OpenSSL, and how much it is made to cost.

What a header may ask for is bounded in `sysproc.storage.luks.bounds` before anything here is called.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2i, Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from sysproc.storage.luks.bounds import ROUNDS_A_KIB

HASHES: dict[str, type[HashAlgorithm]] = {"sha256": SHA256, "sha512": SHA512}
ARGON2: dict[str, type[Argon2i] | type[Argon2id]] = {"argon2id": Argon2id, "argon2i": Argon2i}
SALT_BYTES = 32
# The least that RFC 9106 and cryptsetup give; more memory instead of more passes.
_LEAST_PASSES = 4
_MOST_PASSES = 64
_MOST_KIB, _LEAST_KIB = 256 << 10, 32 << 10
_MOST_LANES = 4
TARGET_S = 1.0
# How long it shall be instead, for the processes that make key slots: the setting `luks_iter_time_s` of the daemon.
VARIABLE = "SYSPROC_LUKS_ITER_TIME_S"


@dataclass(frozen=True)
class Argon2:
    """argon2 with its costs: passes, memory in KiB, lanes."""

    kind: str
    passes: int
    memory_kib: int
    lanes: int
    salt: bytes

    @property
    def cost(self) -> int:
        """In KiB passed over."""
        return self.passes * self.memory_kib

    def derive(self, secret: memoryview, target: memoryview) -> None:
        """Fill the target."""
        kind = ARGON2[self.kind]
        function = kind(
            salt=self.salt,
            length=len(target),
            iterations=self.passes,
            lanes=self.lanes,
            memory_cost=self.memory_kib,
        )
        function.derive_into(secret, target)  # type: ignore[arg-type]  # the stubs say bytes; any buffer is taken


@dataclass(frozen=True)
class Pbkdf2:
    """PBKDF2 with HMAC, as other tools make it where argon2 is too much for the machine."""

    hash_name: str
    rounds: int
    salt: bytes

    @property
    def cost(self) -> int:
        """In KiB that argon2 would pass over meanwhile."""
        return self.rounds // ROUNDS_A_KIB

    def derive(self, secret: memoryview, target: memoryview) -> None:
        """Fill the target."""
        algorithm = HASHES[self.hash_name]()
        function = PBKDF2HMAC(algorithm, length=len(target), salt=self.salt, iterations=self.rounds)
        function.derive_into(secret, target)


Kdf = Argon2 | Pbkdf2


@dataclass(frozen=True)
class Cost:
    """How much a new key slot costs whoever tries a passphrase."""

    passes: int
    memory_kib: int
    lanes: int

    def fresh(self) -> Argon2:
        """argon2id with a salt of its own."""
        return Argon2("argon2id", self.passes, self.memory_kib, self.lanes, os.urandom(SALT_BYTES))


def target_s() -> float:
    """How long it shall take whoever tries a passphrase."""
    return float(os.environ.get(VARIABLE, TARGET_S))


def measured_cost(wanted_s: float | None = None, seconds_of: Callable[[Cost], float] | None = None) -> Cost:
    """What takes about so long on this machine: up to 256 MiB of memory first, then more passes."""
    measure = seconds_of or _seconds_of
    most_kib = max(_LEAST_KIB, min(_MOST_KIB, _available_kib() // 4))
    lanes = max(1, min(_MOST_LANES, os.cpu_count() or 1))
    trial = Cost(_LEAST_PASSES, _LEAST_KIB, lanes)
    passed_a_s = trial.passes * trial.memory_kib / max(measure(trial), 1e-6)
    affordable = int(passed_a_s * (target_s() if wanted_s is None else wanted_s))
    memory_kib = max(_LEAST_KIB, min(most_kib, affordable // _LEAST_PASSES)) >> 10 << 10
    passes = max(_LEAST_PASSES, min(_MOST_PASSES, affordable // memory_kib))
    return Cost(passes, memory_kib, lanes)


def _seconds_of(cost: Cost) -> float:
    begin = time.perf_counter()
    cost.fresh().derive(memoryview(b"measured"), memoryview(bytearray(32)))
    return time.perf_counter() - begin


def _available_kib() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
