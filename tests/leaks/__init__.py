"""The leak check: after a test the machine has nothing of ours that it did not have before.

    with leak_check(Scope(directories=(tmp_path,), cgroup_roots=("sysproc-test-1",))):
        ...                             # raises Leaked, with a list, if something stays

What is looked at is the table in `tests.leaks.table`; only what belongs to the scope is compared, so that
other daemons and other tests of this machine do not matter. Suites use it as an autouse fixture of their
conftest.py.
"""

from tests.leaks.check import Leaked, leak_check
from tests.leaks.scope import Scope

__all__ = ["Leaked", "Scope", "leak_check"]
