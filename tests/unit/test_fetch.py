"""`dip fetch` with downloads that are not real: what is brought, where it goes, and what is said without a network."""

from __future__ import annotations

import logging
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip import cli
from dip.fetch import fetch
from dip.schema import Params

ENCODER = "vit_base_patch14_dinov2.lvd142m"
ADM = {
    "title": "ADM suite",
    "image_size": 64,
    "extractor": {"name": "inception"},
    "reference": {"kind": "file"},
    "num_samples": 10,
}
Load = Callable[..., Params]


@pytest.fixture
def content(content: dict[str, Any]) -> dict[str, Any]:
    """The tiny params.yaml with two runs of the paper study: 16 x 16 patches, DINOv2 and Inception."""
    content["datasets"]["photos"]["image_size"] = content["evaluation"]["photos"]["image_size"] = 16
    content["evaluation"]["photos"]["extractor"] = {"name": "photo", "dataset": "photos"}  # nothing to fetch
    content["datasets"]["large"] = {"base": "photos", "image_size": 64}
    content["evaluation"]["adm"] = dict(ADM)
    content["runs"]["aligned"] = {
        "base": "dip",
        "study": "paper",
        "dataset": "large",
        "evaluation": "adm",
        "training": {"alignment": {"block": 1}},
    }
    content["runs"]["other"] = {"base": "aligned", "training": {"batch_size": 2}}
    return content


class Network:
    """Downloads that write a word where the real ones would write a file."""

    def __init__(self, folder: Path) -> None:
        self.encoder = folder / "hub" / "model.safetensors"
        self.inception = folder / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
        self.asked: list[str] = []
        self.error: Exception | None = None

    def _write(self, what: str, path: Path) -> None:
        self.asked.append(what)
        if self.error is not None:
            raise self.error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")

    def hf_hub_download(self, repository: str, file: str) -> None:
        self._write(f"{repository}/{file}", self.encoder)

    def download_url_to_file(self, url: str, target: str, sha256: str) -> None:
        assert len(sha256) == 64
        self._write(url, Path(target))

    def cached(self, repository: str, file: str) -> str | None:
        return str(self.encoder) if self.encoder.exists() and file == self.encoder.name else None


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network(tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", network.hf_hub_download)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", network.cached)
    monkeypatch.setattr("torch.hub.download_url_to_file", network.download_url_to_file)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "cache"))
    return network


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of params.yaml as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_weights_are_brought_once(
    load: Load, content: dict[str, Any], network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: a job would not find what was fetched, or gigabytes would be fetched for every run or every call."""
    with caplog.at_level(logging.INFO):
        files = fetch(load(content))
    assert sorted(files.values()) == [network.inception, network.encoder]
    assert network.asked[0] == f"timm/{ENCODER}/model.safetensors"
    assert network.asked[1].endswith("weights-inception-2015-12-05-6726825d.pth")
    assert f"{ENCODER} (training.alignment): {network.encoder}" in caplog.messages
    assert fetch(load(content)) == files
    assert len(network.asked) == 2


@pytest.mark.parametrize(("what", "number"), [(["alignment"], 1), (["inception"], 1), (["inception", "alignment"], 2)])
def test_what_limits_it(load: Load, content: dict[str, Any], network: Network, what: list[str], number: int) -> None:
    """Wrong: a machine that only evaluates would fetch encoders of training."""
    assert len(fetch(load(content), what)) == number == len(network.asked)


def test_study_without_pretrained_weights_fetches_nothing(
    load: Load, content: dict[str, Any], network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: the demo, which is offline, would ask for a network."""
    with caplog.at_level(logging.INFO):
        assert fetch(load(content), study="demo") == {}
    assert network.asked == []
    assert "nothing to fetch: no run of study 'demo' needs pretrained weights (alignment, inception)" in caplog.messages
    assert len(fetch(load(content), study="paper")) == 2


def test_no_network_is_one_message(load: Load, content: dict[str, Any], network: Network) -> None:
    """Wrong: a traceback of an HTTP library, or the second file would not be tried after the first has failed."""
    network.error = urllib.error.URLError("Name or service not known")
    with pytest.raises(OSError) as error:
        fetch(load(content))
    first, second = str(error.value).split("\n")
    assert first.startswith(f"{ENCODER} (training.alignment) could not be fetched from huggingface.co/timm/{ENCODER} (")
    assert "Name or service not known" in first and "Run `dip fetch` on a machine with internet" in first
    assert "InceptionV3" in second and "could not be fetched from https://" in second


def test_damaged_download_is_not_taken(load: Load, content: dict[str, Any], network: Network) -> None:
    """Wrong: a page of a proxy would lie where the evaluation looks for Inception."""
    network.error = RuntimeError('invalid hash value (expected "67", got "00")')
    with pytest.raises(OSError, match="invalid hash value"):
        fetch(load(content), ["inception"])
    assert not network.inception.exists()


def test_file_that_params_yaml_names_is_the_user_s(
    load: Load, content: dict[str, Any], network: Network, tmp_path: Path
) -> None:
    """Wrong: weights would be fetched that no job reads, or a missing file would go unnoticed until a job reads it."""
    own = tmp_path / "dinov2.safetensors"
    content["runs"]["aligned"]["training"]["alignment"]["encoder_path"] = str(own)
    content["evaluation"]["adm"]["extractor"] = {"name": "inception", "weights": str(tmp_path / "inception.pth")}
    with pytest.raises(OSError) as error:
        fetch(load(content))
    assert str(own) in str(error.value) and "inception.pth" in str(error.value)
    own.write_text("weights")
    assert list(fetch(load(content), ["alignment"]).values()) == [own]
    assert network.asked == []


def test_variables_that_are_not_set_are_told_at_once(
    load: Load,
    content: dict[str, Any],
    here: Path,
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Wrong: the user would set one variable, wait, and be told of the next; and nothing else would be fetched."""
    for name in ("DIP_TEST_DINO", "DIP_TEST_INCEPTION"):
        monkeypatch.delenv(name, raising=False)
    content["runs"]["aligned"]["training"]["alignment"]["encoder_path"] = "$DIP_TEST_DINO"
    content["evaluation"]["adm"]["extractor"] = {"name": "inception", "weights": "$DIP_TEST_INCEPTION/inception.pth"}
    content["runs"]["fetched"] = {"base": "aligned", "training": {"alignment": {"encoder_path": None}}}
    load(content)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stop:
        cli.main(["fetch"])
    first, second = str(stop.value.code).split("\n")
    assert "encoder_path is '$DIP_TEST_DINO', and the environment variable DIP_TEST_DINO is not set" in first
    assert "evaluation.adm.extractor.weights is" in second and "variable DIP_TEST_INCEPTION is not set" in second
    assert network.encoder.exists() and f"{ENCODER} (training.alignment): {network.encoder}" in caplog.messages


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inceptoin"], "dip fetch: there is nothing to fetch named 'inceptoin'; did you mean 'inception'?"),
        (["--study", "dmeo"], "dip fetch: params.yaml: studies.dmeo: there is no such study; did you mean 'demo'?"),
    ],
)
def test_mistyped_names(
    load: Load, content: dict[str, Any], here: Path, network: Network, arguments: list[str], message: str
) -> None:
    """Wrong: nothing would be fetched, and a job would find that out."""
    load(content)
    with pytest.raises(SystemExit) as stop:
        cli.main(["fetch", *arguments])
    assert stop.value.code == message


def test_command_line(load: Load, content: dict[str, Any], here: Path, network: Network) -> None:
    """Wrong: `dip fetch` would not reach the function."""
    load(content)
    cli.main(["fetch", "--study", "demo"])
    assert network.asked == []
    cli.main(["fetch", "inception"])
    assert network.inception.exists() and not network.encoder.exists()
