"""Who can run the virtual machine; everybody else sees it skipped, with the reason.

The machine itself is `tests.vm.machine`, its disk `tests.vm.image`.
"""

import platform
import shutil

import pytest

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
