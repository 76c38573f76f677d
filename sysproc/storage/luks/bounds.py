"""What a header may ask for. It comes from outside: nothing is spent before all of it was compared with these.

Costs are counted in KiB that argon2 passes over: a GiB takes about a second, and so do three million rounds of PBKDF2.
"""

HEADER_SIZES = tuple(0x4000 << step for step in range(9))
MOST_SLOTS = 32
MOST_STRIPES = 4000
MOST_KEYSLOTS_BYTES = 128 << 20
# Punctuation in JSON: each stands for about one object in memory.
MOST_JSON_PARTS = 100_000
MOST_JSON_DEPTH = 32

# cryptsetup takes at most 1 GiB by default.
MOST_ARGON2_KIB = 1 << 20
MOST_LANES = 16
MOST_COST_OF_A_SLOT = 32 << 20
# All slots that are tried for one passphrase together; which are left out is said.
MOST_COST_OF_ALL = 64 << 20
ROUNDS_A_KIB = 3
MOST_ROUNDS = MOST_COST_OF_A_SLOT * ROUNDS_A_KIB
LEAST_ROUNDS = 1000

MOST_KEY_BYTES = 8 << 20
