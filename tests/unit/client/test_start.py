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
