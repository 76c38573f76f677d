"""The Debian package on a Debian 12 with systemd: installed, used, upgraded, removed and purged by Debian's tools.

Part of `--vm=full` only. The steps are `install_deb.sh`; what the package is made of is in `packaging/debian`.
"""

import shutil
from pathlib import Path

import pytest

from tests.packaging.debian_package import lintian
from tests.vm.image import Image
from tests.vm.machine import run_script

TIMEOUT_S = 1800


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lintian_finds_nothing_that_no_reason_is_given_for(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("not installed: lintian (scripts/install-packages deb)")
    assert lintian(package) == []


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 900)
def test_the_package_is_installed_upgraded_and_purged_and_containers_outlive_what_they_should(
    debian_12: Image, package: Path, tmp_path: Path
) -> None:
    shutil.copyfile(package, tmp_path / "sysproc.deb")
    script = Path(__file__).with_name("install_deb.sh")
    results = run_script(debian_12, script, tmp_path / "sysproc.deb", directory=tmp_path, timeout_s=TIMEOUT_S)
    assert results.status == 0, "the step that failed is the last one on the console"
    release, cgroup, first_process = results.facts
    assert (release[:4], cgroup, first_process) == ("6.1.", "cgroup2fs", "systemd")
