"""Who can run the virtual machine; everybody else sees it skipped, with the reason.

The machine itself is `tests.vm.machine`, its disk `tests.vm.image`.
"""

import platform
import shutil
from pathlib import Path

import pytest

from tests.packaging.debian_package import build_package, why_not
from tests.packaging.distributions import build, copy_clone
from tests.vm.image import Image, image

COMMANDS = ("mmdebstrap", "qemu-system-x86_64", "mke2fs")


@pytest.fixture(scope="session")
def debian_12() -> Image:
    """The image to boot; building it the first time takes a minute or two."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the virtual machine is made for x86_64, this is {platform.machine()}")
    if missing := [command for command in COMMANDS if shutil.which(command) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (scripts/install-packages vm)")
    return image()


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this tree, made once; that takes a minute or two."""
    if request.config.getoption("--vm") != "full":
        pytest.skip("the package takes minutes to make and install: `make test-vm` does")
    if reason := why_not():
        pytest.skip(reason)
    clone = tmp_path_factory.mktemp("clone")
    copy_clone(clone)
    return build_package(build(clone, tmp_path_factory.mktemp("dist")), tmp_path_factory.mktemp("deb"))
