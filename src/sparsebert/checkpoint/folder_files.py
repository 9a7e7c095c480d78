"""The files that a model folder may have: absent, readable, or an error.

A part that is there but cannot be read is never taken for absent: without its modules.json a model
answers with other vectors. And a folder from elsewhere may hold links to any file of the user's,
whose content must not get into what is written or pushed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparsebert.errors import CheckpointError


def has_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises CheckpointError for something else under this name (a folder, a pipe, a device, which
    reading could wait for without end), for a link to nothing, and for a file that may not be read.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.islink(path):
            return False
        raise CheckpointError(f"{path} is a link to a file that is not there.") from None
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {reason}.") from None
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a file, and must be one or absent.")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} may not be read by this user.")
    return True


def check_inside(path: Path, folder: Path) -> None:
    """CheckpointError for a link that leads out of ``folder``, unless within the hub's cache."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real.is_relative_to(home):
        return
    # models--OWNER--NAME/snapshots/COMMIT/FILE is a link to models--OWNER--NAME/blobs/HASH.
    if home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs":
        return
    raise CheckpointError(
        f"{path} is a link that leads out of the model folder: put a copy of the file in its place."
    )
