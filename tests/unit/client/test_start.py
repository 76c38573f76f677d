"""The first moments of the command. What it does is tested with a service, in tests/e2e."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_ctrl_c_while_it_loads_ends_it_by_the_signal_and_without_a_word(tmp_path: Path) -> None:
    """click is the first that it loads: here one that is interrupted."""
    slow = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    (tmp_path / "click.py").write_text(slow)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    call = [sys.executable, "-c", "from sysproc_client.cli.start import main; main()"]
    done = subprocess.run(call, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_ctrl_c_while_a_subcommand_loads_is_not_lost_where_an_exception_would_be(tmp_path: Path) -> None:
    """Python ignores one that is raised in a weak reference's callback, as its import has them."""
    lost = """
import os, signal, weakref
class Gone: pass
gone = Gone()
reference = weakref.ref(gone, lambda _: os.kill(os.getpid(), signal.SIGINT))
del gone
"""
    (tmp_path / "grpc.py").write_text(lost)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "SYSPROC_ENDPOINT": "unix:///nowhere"}
    call = [sys.executable, "-c", "from sysproc_client.cli.start import main; main()", "whoami"]
    done = subprocess.run(call, env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.strip()) == (130, b"")
