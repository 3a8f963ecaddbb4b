"""A copy of a store on the node's own disk, where the shared file system is slower than training."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from dip.data.lock import locked
from dip.data.manifest import read_manifest
from dip.files import atomic_copy, sha256
from dip.paths import Store
from dip.progress import Progress

LOCAL_DATA = "DIP_LOCAL_DATA"
"""Environment variable: a folder of the node. Where it is set, trainings read their data from a copy in it."""

_log = logging.getLogger(__name__)


def nearest_store(store: Store) -> Store:
    """The store itself, or a copy of it in the folder that `DIP_LOCAL_DATA` names, made or completed if need be.

    The processes of a node share the copy: the first makes it, the others wait. Where it cannot be made (no room, a
    folder that cannot be written to) the store itself is read, with a warning: that changes no result.

    Raises:
        ValueError: There is no store.
    """
    folder = os.environ.get(LOCAL_DATA)
    if not folder:
        return store
    manifest = read_manifest(store)
    # Named by content, so that another preparation goes to another folder.
    target = Store(Path(folder).expanduser() / f"{manifest.name}-{sha256(store.manifest)[:12]}")
    try:
        with locked(target.folder):
            # The manifest comes last: it makes the files a store.
            _complete([*(store.folder / file.file for file in manifest.files), store.manifest], target.folder)
    except OSError as error:
        _log.warning("%s: no copy of the data (%s); reading %s itself", target.folder, error, store.folder)
        return store
    return target


def _complete(files: list[Path], folder: Path) -> None:
    """Copy the files that are not in a folder, or not whole.

    Raises:
        OSError: There is no room for them, or one cannot be read or written.
    """
    missing = [path for path in files if not _is_copied(path, folder / path.name)]
    needed, free = sum(path.stat().st_size for path in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"no room: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")
    if missing:
        with Progress("copy", total=len(missing), unit="file") as progress:
            for path in missing:
                atomic_copy(path, folder / path.name)
                progress.advance()


def _is_copied(path: Path, copy: Path) -> bool:
    return copy.exists() and copy.stat().st_size == path.stat().st_size
