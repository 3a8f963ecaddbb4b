"""Preparing 2,000 JPEGs in the shape of ImageNet with several processes, also when they are killed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from image_files import content_of, encoded, write_folder
from PIL import Image

from dip import params
from dip.data import workers
from dip.data.dataset import ImageStore
from dip.data.decode import decode
from dip.data.manifest import read_manifest
from dip.data.prepare import prepare
from dip.data.shards import images_per_shard
from dip.data.verify import verify
from dip.paths import Store

NUM_CLASSES, PER_CLASS, IMAGE_SIZE = 20, 100, 128
DAMAGED = 3


def odd(number: int, image: Image.Image) -> bytes:
    """Most are JPEGs in RGB; some are what else occurs in ImageNet, and three cannot be read."""
    kinds = {
        10: lambda: encoded(image.convert("L")),
        20: lambda: encoded(image.convert("CMYK")),
        30: lambda: encoded(image, "PNG"),
        40: lambda: encoded(image.resize((IMAGE_SIZE, IMAGE_SIZE))),
        50: lambda: encoded(image.resize((40, 333))),
        60: lambda: encoded(image, progressive=True),
        70: lambda: encoded(image)[:-500],
        1070: lambda: b"",
        1999: lambda: b"<html>404</html>",
    }
    return kinds.get(number, lambda: encoded(image))()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,000 files in 20 folders."""
    rng = np.random.default_rng(0)
    files = {}
    for number in range(NUM_CLASSES * PER_CLASS):
        synset = f"n{number // PER_CLASS:08d}"
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        image = coarse.resize((int(rng.integers(150, 260)), int(rng.integers(150, 260))), Image.Resampling.BICUBIC)
        files[f"{synset}/{synset}_{number}.JPEG"] = odd(number, image)
    return write_folder(tmp_path_factory.mktemp("imagenet") / "train", files)


@pytest.fixture
def project(workplace: Path, source: Path) -> Path:
    """A params.yaml with these images as `imagenet`."""
    dataset = {
        "kind": "imagenet",
        "source": str(source),
        "image_size": IMAGE_SIZE,
        "num_classes": NUM_CLASSES,
        "num_images": NUM_CLASSES * PER_CLASS - DAMAGED,
        "max_skipped": 0.002,
    }
    path = workplace / "params.yaml"
    path.write_text(path.read_text().replace("datasets:\n", f"datasets:\n  imagenet: {json.dumps(dataset)}\n"))
    return workplace


def start() -> subprocess.Popen[str]:
    # The shell that these tests may run in the background of has its children ignore interrupts.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "dip.cli", "prepare", "imagenet", "--workers", "2"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_killed_preparation_goes_on(end: signal.Signals) -> None:
    """Wrong: hours would be lost, workers would stay, or the result would depend on the kill."""
    dataset, store = params.load().datasets["imagenet"], Store.of("imagenet")
    assert images_per_shard(2000, IMAGE_SIZE) < 700, "there are several shards"
    for _ in range(5):
        process = start()
        wait_until(lambda: any(store.folder.glob("images-*.json")))
        children = psutil.Process(process.pid).children(recursive=True)
        if end == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, end)  # as Ctrl-C does
        _, errors = process.communicate()
        for child in children:
            wait_until(functools.partial(has_ended, child))
        if process.returncode != 0:
            break
        shutil.rmtree(store.folder)  # it was done before the signal came
    assert process.returncode != 0 and not store.manifest.exists()
    if end == signal.SIGINT:
        assert "interrupted; run the same command again to go on" in errors and "Traceback" not in errors
        assert not any(store.folder.glob(".*.tmp"))
    finished = {path: path.stat().st_mtime_ns for path in store.folder.glob("images-*.json")}
    assert finished
    process = start()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished shards were not made again"
    prepare("imagenet", dataset, Store(Path("whole")))
    assert content_of(store) == content_of(Store(Path("whole")))


def test_an_interrupt_while_workers_start_is_the_parents() -> None:
    """Wrong: a worker that is not ready would print a traceback, or Ctrl-C would be lost."""
    program = "import signal, sys; sys.exit(10 + (signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    arrived, handler = [], signal.signal(signal.SIGINT, lambda *_: arrived.append(True))
    try:
        with workers._interrupts_held_back():
            child = subprocess.Popen([sys.executable, "-c", program])
            signal.raise_signal(signal.SIGINT)
            assert not arrived
        assert arrived
    finally:
        signal.signal(signal.SIGINT, handler)
    assert child.wait() == 11


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_two_thousand_images_are_those_of_the_files(source: Path) -> None:
    """Wrong: an image would be at another's place, or one of the odd kinds would be lost."""
    dataset, store = params.load().datasets["imagenet"], Store.of("imagenet")
    prepare("imagenet", dataset, store, num_workers=2)
    manifest, images = read_manifest(store), ImageStore(store, dataset)
    reasons = {
        "OSError": 1,
        "empty file, a pipe, or a link to a file that is gone": 1,
        "not an image of a known format": 1,
    }
    assert [found.why.split(":")[0] for found in manifest.skipped] == list(reasons)
    assert sum(manifest.images_per_class) == len(images) == 1997 and set(manifest.images_per_class) == {99, 100}
    skipped = {found.name for found in manifest.skipped}
    kept = [path for path in sorted(source.rglob("*.JPEG")) if path.relative_to(source).as_posix() not in skipped]
    for place in [*range(0, 1997, 61), 10, 20, 30, 40, 50, 60, 1996]:
        expected = decode(kept[place].read_bytes(), IMAGE_SIZE, upright=False)
        np.testing.assert_array_equal(images.images[place], expected)
        assert images.labels[place] == int(kept[place].parent.name[1:])
    verify("imagenet", dataset, store, num_workers=2)
