"""Small images in the shape of ImageNet: as folders, as a tar of tars and as Parquet files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from dip.paths import Store

# Orientation 6: shown after a quarter turn clockwise.
TURNED = Image.Exif()
TURNED[0x0112] = 6

Files = Mapping[str, bytes]  # name "n01440764/n01440764_1.JPEG" to content


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def picture(width: int = 30, height: int = 20, seed: int = 0) -> Image.Image:
    """A picture whose every pixel matters."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def write_folder(folder: Path, files: Files) -> Path:
    """Files in folders of classes."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> bytes:
    """An uncompressed tar; its content."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path.read_bytes()


def write_tar_of_tars(path: Path, files: Files) -> Path:
    """A tar of one tar per class, classes and images in the order of `files`."""
    classes: dict[str, list[tuple[str, bytes]]] = {}
    for name, content in files.items():
        synset, _, image = name.partition("/")
        classes.setdefault(synset, []).append((image, content))
    inner = [(f"{synset}.tar", write_tar(path.with_suffix(".inner"), images)) for synset, images in classes.items()]
    path.with_suffix(".inner").unlink()
    write_tar(path, inner)
    return path


def write_parquet(
    path: Path, contents: list[bytes], labels: list[int | None], names: list[str] | None = None, rows: int = 3
) -> Path:
    """A file as Hugging Face writes it, `rows` to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pa.array(
        [{"bytes": content, "path": f"{number}.JPEG"} for number, content in enumerate(contents)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    table = pa.table({"image": image, "label": pa.array(labels, pa.int64())})
    if names is not None:
        features = {"info": {"features": {"label": {"names": names}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, path, row_group_size=rows)
    return path


def content_of(store: Store) -> dict[str, bytes]:
    """All files of a store by name, but for its lock and what says how it was made."""
    files = (path for path in store.folder.iterdir() if path.name not in (".lock", "manifest.provenance.json"))
    return {path.name: path.read_bytes() for path in files}
