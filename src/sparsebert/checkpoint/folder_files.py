"""The files that a model folder may have: absent, readable, or an error.

A file that exists but cannot be read is never treated as absent: without its modules.json, for
example, a model would return different vectors. And a folder from elsewhere may contain links to
any of the user's files, whose content must not end up in what is written or pushed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparsebert.errors import CheckpointError


def has_file(path: Path) -> bool:
    """Whether there is such a file.

    Raises CheckpointError for anything else of this name (a folder, or a pipe or device, where
    reading could block forever), for a broken link, and for a file without read permission.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.islink(path):
            return False
        raise CheckpointError(f"{path} is a link to a file that does not exist.") from None
    except (OSError, ValueError) as error:  # a loop of links, a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {reason}.") from None
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a regular file: replace it with one, or remove it.")
    if not os.access(path, os.R_OK):
        raise CheckpointError(f"{path} cannot be read: this user has no permission.")
    return True


def check_inside(path: Path, folder: Path) -> None:
    """Raise CheckpointError for a link out of ``folder``, unless it is within the hub's cache."""
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real.is_relative_to(home):
        return
    # models--OWNER--NAME/snapshots/COMMIT/FILE is a link to models--OWNER--NAME/blobs/HASH.
    if home.parent.name == "snapshots" and real.parent == home.parent.parent / "blobs":
        return
    raise CheckpointError(
        f"{path} is a link that leads out of the model folder: replace it with a copy of the file."
    )
