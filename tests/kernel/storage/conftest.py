"""Nothing of a volume is left behind: each test here ends with as many fds, namespaces and keys as it began with.

That its process ends and its loop device is free again, `tests.kernel.storage.open_volume` waits for.
"""

from collections.abc import Iterator

import pytest

from tests.leaks import Scope, leak_check


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    with leak_check(Scope()):
        yield
