"""Makes an environment for each peer from its hash-pinned lock."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Environments, logs and figures; ignored by git.
FOLDER = ROOT / ".bench"


def interpreter(lock: Path) -> Path:
    """Return the Python of the environment of *lock*; make the environment anew unless it is up to date.

    Raises:
        subprocess.CalledProcessError: the packages could not be installed; pip has printed the reason.
    """
    home = FOLDER / lock.stem
    stamp = home / "installed.lock"
    python = home / "bin" / "python"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return python
    print(f"installing {lock.relative_to(ROOT)} into {home.relative_to(ROOT)}", file=sys.stderr)
    venv.create(home, clear=True, symlinks=True, with_pip=True)
    quiet = ["-qq", "--disable-pip-version-check", "--no-input"]
    # Only wheels, since building from source would fetch build tools that no lock pins.
    pinned = ["--only-binary", ":all:", "--require-hashes", "-r", str(lock)]
    subprocess.run([str(python), "-m", "pip", "install", *quiet, *pinned], check=True)
    stamp.write_bytes(lock.read_bytes())
    return python
