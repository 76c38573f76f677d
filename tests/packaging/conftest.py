"""What is built once for all tests here: both distributions out of a clean clone, and a virtual environment of them.

How they are built and installed is in `tests.packaging.distributions`.
"""

from pathlib import Path

import pytest

from tests.packaging.distributions import Built, Installed, build, copy_clone, install


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree as a clone would have it: nothing in it is generated."""
    directory = tmp_path_factory.mktemp("clone")
    copy_clone(directory)
    return directory


@pytest.fixture(scope="session")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheels and source distributions of that clone."""
    return build(clone, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A virtual environment with both, and a PATH without any compiler."""
    return install(built, tmp_path_factory.mktemp("installed"))
