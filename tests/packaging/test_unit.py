"""The unit that is shipped, as systemd's own tools see it. How it does its work is in `tests.e2e.test_systemd`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.distributions import ROOT

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="not installed: systemd")

UNIT = ROOT / "packaging/sysprocd.service"
# 9.6 is a unit without any, 8.8 ours: its comments say what cannot be taken from a daemon that makes containers.
MOST_EXPOSED = 8.9


def systemd_analyze(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_systemd_accepts_it(tmp_path: Path) -> None:
    copy = tmp_path / "sysprocd.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/sysprocd", str(Path(sys.executable).with_name("sysprocd"))))
    done = systemd_analyze("verify", "--man=no", copy)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_misspelt_setting_would_be_found(tmp_path: Path) -> None:
    copy = tmp_path / "sysprocd.service"
    copy.write_text(UNIT.read_text().replace("/usr/bin/sysprocd", "/bin/true").replace("KillMode=", "KilMode="))
    assert "KilMode" in systemd_analyze("verify", "--man=no", copy).stderr


def test_it_is_no_more_exposed_than_it_was() -> None:
    done = systemd_analyze("security", "--offline=true", "--no-pager", UNIT)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_nothing_in_it_would_end_containers_with_the_service() -> None:
    settings = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    assert "KillMode=process" in settings
    assert "RuntimeDirectoryPreserve=yes" in settings
    assert not [line for line in settings if line.startswith("Delegate=")]
