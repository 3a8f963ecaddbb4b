"""Commands for datasets, feature networks, references and pretrained weights."""

from __future__ import annotations

import argparse
import logging
import os

from dip import params as reader
from dip.cli.common import Add, begin, count, end
from dip.files import check_writable
from dip.paths import Store, feature_network, reference
from dip.pipeline.resolved import photographs_of
from dip.schema import PhotoExtractor


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    photograph = "copy a photograph from its Python package to data/photographs"
    add("photograph", _photograph, photograph, "name").set_defaults(light=True)
    prepare = add("prepare", _prepare, "write the images and labels of a dataset to data/<dataset>", "dataset")
    verify = add("verify", _verify, "check a prepared dataset against its checksums and params.yaml", "dataset")
    for command, what in ((prepare, "processes"), (verify, "files at a time")):
        command.add_argument("--workers", type=count, default=_own_cores(), help=what)
    add("features", _features, "train the feature network of an evaluator", "evaluation")
    add("reference", _reference, "write the images and statistics that samples are compared with", "evaluation")
    fetch = add("fetch", _fetch, "download the pretrained weights that runs need, before any job (needs internet)")
    fetch.add_argument("what", nargs="*", help="alignment (DINOv2), inception; both if not given")
    fetch.add_argument("--study", help="serve the runs of paper, small or demo; all runs if not given")


def _own_cores() -> int:
    """Cores that this process may use; all where the system does not tell (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _photograph(options: argparse.Namespace) -> None:
    from dip.data.packaged import copy_of, copy_photograph

    photograph, params = options.name.split(".")[0], reader.load()
    copy = copy_of(photograph)
    if photograph not in photographs_of(params):
        raise reader.ParamsError(f"params.yaml: no dataset or figure uses the photograph '{photograph}'")
    job = begin(params, "photograph", copy.name)
    copy_photograph(photograph)
    end(job)


def _prepare(options: argparse.Namespace) -> None:
    from dip.data.prepare import prepare

    params = reader.load()
    name = reader.known(params, "datasets", options.dataset)
    job = begin(params, "prepare", name)
    prepare(name, params.datasets[name], Store.of(name), num_workers=options.workers)
    end(job)


def _verify(options: argparse.Namespace) -> None:
    from dip.data.verify import verify

    params = reader.load()
    name = reader.known(params, "datasets", options.dataset)
    manifest = verify(name, params.datasets[name], Store.of(name), num_workers=options.workers)
    skipped = f", {len(manifest.skipped)} skipped" if manifest.skipped else ""
    logging.info("%d images in %d shard(s)%s: all in order", manifest.num_images, len(manifest.shards), skipped)


def _features(options: argparse.Namespace) -> None:
    import numpy as np

    from dip.data.dataset import ImageStore
    from dip.evaluation.photo_network import save_photo_network, train_photo_network
    from dip.memory import keep_freed_memory

    params = reader.load()
    name = reader.known(params, "evaluation", options.evaluation)
    extractor = params.evaluation[name].extractor
    if not isinstance(extractor, PhotoExtractor):
        raise ValueError(f"evaluation.{name}: its feature network is a published one, not trained here")
    check_writable(feature_network(name))
    job = begin(params, "feature_network", name)
    keep_freed_memory()
    store = ImageStore(Store.of(extractor.dataset))
    network = train_photo_network(
        np.asarray(store.images),
        store.labels,
        len(store.class_names),
        num_steps=extractor.num_steps,
        seed=extractor.seed,
        progress=True,
    )
    save_photo_network(network, feature_network(name))
    end(job)


def _reference(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import make_reference

    params = reader.load()
    name = reader.known(params, "evaluation", options.evaluation)
    check_writable(reference(name))
    job = begin(params, "reference", name)
    make_reference(name, params.evaluation[name], params.datasets, reference(name))
    end(job)


def _fetch(options: argparse.Namespace) -> None:
    from dip.fetch import fetch

    params = reader.load()
    if options.study is not None:
        reader.known(params, "studies", options.study)
    fetch(params, options.what, options.study)
