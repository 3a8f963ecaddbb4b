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
    """The store itself, or a copy of it in the folder that `DIP_LOCAL_DATA` names, made if it is not there.

    The processes of a node share the copy: the first makes it, the others wait. Where there is no room the store
    itself is read, with a warning: that changes no result.

    Raises:
        ValueError: There is no store.
        OSError: The folder cannot be written to.
    """
    folder = os.environ.get(LOCAL_DATA)
    if not folder:
        return store
    manifest = read_manifest(store)
    # Named by content, so that another preparation goes to another folder.
    target = Store(Path(folder).expanduser() / f"{manifest.name}-{sha256(store.manifest)[:12]}")
    with locked(target.folder):
        if target.manifest.exists():
            return target
        files = [store.folder / file.file for file in manifest.files]
        missing = [path for path in files if not _is_copied(path, target)]
        needed, free = sum(path.stat().st_size for path in missing), shutil.disk_usage(target.folder).free
        if needed > free:
            _log.warning(
                "%s: no room for a copy (%.1f GB needed, %.1f GB free); reading %s itself",
                target.folder, needed / 1e9, free / 1e9, store.folder,
            )  # fmt: skip
            return store
        with Progress("copy", total=len(missing), unit="file") as progress:
            for path in missing:
                atomic_copy(path, target.folder / path.name)
                progress.advance()
        atomic_copy(store.manifest, target.manifest)
    return target


def _is_copied(path: Path, target: Store) -> bool:
    copy = target.folder / path.name
    return copy.exists() and copy.stat().st_size == path.stat().st_size
