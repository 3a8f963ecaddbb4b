"""If these fail, files of this or of other projects are compared with something else than was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dip import cli, params
from dip.data.prepare import write_store
from dip.evaluation import stage
from dip.evaluation.npz import load_reference
from dip.evaluation.photo_network import save_photo_network
from dip.evaluation.protocol import write_reference
from dip.files import sha256
from dip.paths import RunFolder, Store, feature_network, reference
from dip.schema import Evaluation, EvaluationSpec, FileReference, InceptionExtractor, Photographs

EVALUATOR = Evaluation.parse(
    json.dumps(
        {
            "title": "photo network",
            "image_size": 32,
            "extractor": {"name": "photo", "dataset": "crops"},
            "reference": {"kind": "dataset", "dataset": "crops", "num_images": 40},
            "num_samples": 30,
            "inception_score_chunk": 10,
        }
    )
)
DATASET = Photographs(kind="photographs", image_size=32, photographs=("astronaut", "coffee"), crops_per_class=60)


@pytest.fixture
def place(tmp_path, monkeypatch, network, extractor, crops):
    """A folder with a feature network, a dataset, a reference and samples; Inception is that network too."""
    monkeypatch.chdir(tmp_path)
    save_photo_network(network, feature_network("photos"))
    write_store("crops", DATASET, Store.of("crops"), crops.images[:120], np.arange(120) % 2, ["one", "two"])
    write_reference(tmp_path / "reference.npz", crops.images[:100], extractor, name="hundred crops")
    np.savez(tmp_path / "samples.npz", arr_0=crops.images[2000:2030])
    monkeypatch.setattr(stage, "open_extractor", lambda name, weights=None: extractor)
    return tmp_path


def test_reference_of_a_dataset_is_of_all_its_images(place):
    """Statistics would be of the images for precision and recall only."""
    stage.make_reference("photos", EVALUATOR, {"crops": DATASET}, Path("made.npz"))
    made = load_reference("made.npz")
    assert made.pool.num_samples == made.metadata.num_images == 120
    assert made.images.shape == (40, 32, 32, 3)
    assert made.metadata.name == "all 120 images of crops"
    other = DATASET.model_copy(update={"crops_per_class": 7})
    with pytest.raises(ValueError, match=r"prepared with crops_per_class = 60, params\.yaml says 7"):
        stage.make_reference("photos", EVALUATOR, {"crops": other}, Path("made.npz"))


def test_reference_of_held_out_crops_has_its_own_seed_and_number(load, content, tmp_path, monkeypatch):
    """Two references of one dataset would be the same crops, or fewer than asked for."""
    content["evaluation"]["photos"]["reference"] |= {"num_images": 6, "seed": 9}
    params, asked, crops = load(content), [], np.zeros((2, 8, 8, 3), np.uint8)
    monkeypatch.setattr(stage, "_extractor", lambda *arguments: None)
    monkeypatch.setattr(stage, "held_out_crops", lambda dataset, *rest: (asked.append(rest), (crops, None))[1])
    monkeypatch.setattr(stage, "write_reference", lambda *_, **settings: asked.append(settings["num_manifold_images"]))
    stage.make_reference("photos", params.evaluation["photos"], params.datasets, tmp_path / "made.npz")
    assert asked == [(6, 9), 6]


def test_a_run_is_measured_with_the_settings_of_its_evaluator(run, tmp_path, monkeypatch):
    """Every run would be measured with the defaults, or at the grid of other patches, whatever params.yaml says."""
    asked = {}
    monkeypatch.setattr(stage, "_extractor", lambda *arguments: None)
    monkeypatch.setattr(stage, "evaluate", lambda *_, **s: (asked.update(s), dict.fromkeys(stage.SCORES, 0.5))[1])
    evaluation = run.evaluation.model_copy(update={"neighbours": 5, "inception_score_chunk": 7})
    spec = run.part(EvaluationSpec).model_copy(update={"evaluation": evaluation})
    stage.evaluate_run(spec, RunFolder(tmp_path), RunFolder(tmp_path / "work"))
    assert [asked[key] for key in ("k", "is_chunk_size", "patch_size", "num_samples")] == [5, 7, 4, 10]


def test_references_are_files_evaluators_or_datasets(place):
    """A name would be taken for something else, or settings of the evaluator would be lost."""
    samples = place / "samples.npz"
    output, by_file = stage.evaluate_files(samples, "reference.npz", evaluators={}, num_samples=30)
    assert output == place / "samples.metrics.json"
    assert json.loads(output.read_text()) == by_file
    assert (by_file["reference"], by_file["samples"]) == ("hundred crops", "samples.npz")

    with pytest.raises(ValueError, match=r"photos.npz is missing; make it with `dip reference photos`"):
        stage.evaluate_files(samples, "photos", evaluators={"photos": EVALUATOR}, num_samples=30)
    stage.make_reference("photos", EVALUATOR, {"crops": DATASET}, reference("photos"))
    _, by_evaluator = stage.evaluate_files(samples, "photos", evaluators={"photos": EVALUATOR}, num_samples=30)
    assert by_evaluator["settings"]["is_chunk_size"] == 10
    assert by_evaluator["settings"]["reference_images"] == 40
    with pytest.raises(ValueError, match="leave --inception out"):
        stage.evaluate_files(samples, "photos", evaluators={"photos": EVALUATOR}, inception=Path("x.pth"))

    _, by_dataset = stage.evaluate_files(samples, "crops", evaluators={}, num_samples=30)
    assert by_dataset["settings"]["reference_statistics_images"] == 120
    assert by_dataset["fid"] == pytest.approx(by_evaluator["fid"], rel=1e-9)
    (made,) = Path("data/references").glob("crops-*.npz")
    before = made.stat().st_mtime_ns
    stage.evaluate_files(samples, "crops", evaluators={}, num_samples=30)
    assert made.stat().st_mtime_ns == before, "it would be made anew for every set of samples"

    with pytest.raises(ValueError, match=r"'nothing': it is no npz file, no evaluator of params\.yaml .* no prepared"):
        stage.evaluate_files(samples, "nothing", evaluators={}, num_samples=30)


def test_a_dataset_is_not_gone_through_for_samples_that_do_not_fit(place, monkeypatch):
    """After hours of features a mistyped name, a missing sample or another size would come to light."""
    monkeypatch.setattr(stage, "write_reference", lambda *arguments, **options: pytest.fail("it began to measure"))
    np.savez(place / "small.npz", arr_0=np.zeros((30, 16, 16, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match="no such file"):
        stage.evaluate_files(place / "absent.npz", "crops", evaluators={}, num_samples=30)
    with pytest.raises(ValueError, match="expected 50000 samples, found 30"):
        stage.evaluate_files(place / "samples.npz", "crops", evaluators={})
    with pytest.raises(ValueError, match=r"differ in resolution: 16 x 16 in .*small\.npz, 32 x 32 in data/crops"):
        stage.evaluate_files(place / "small.npz", "crops", evaluators={}, num_samples=30)


def test_a_folder_and_an_npz_give_the_same_metrics(place, crops):
    """Samples as PNG files would be read in another way or another order."""
    Path("folder").mkdir()
    for number, image in enumerate(crops.images[2000:2030]):
        Image.fromarray(image).save(f"folder/{number}.png")
    _, one = stage.evaluate_files(place / "samples.npz", "reference.npz", evaluators={}, num_samples=30)
    output, other = stage.evaluate_files(place / "folder", "reference.npz", evaluators={}, num_samples=30)
    assert output == place / "folder.metrics.json"
    for name in ("fid", "sfid", "inception_score", "precision", "recall"):
        assert one[name] == other[name]


def test_jpeg_is_said_in_the_log_and_in_the_metrics(place, crops, caplog):
    """A table could show figures of compressed samples."""
    Path("folder").mkdir()
    for number, image in enumerate(crops.images[2000:2030]):
        Image.fromarray(image).save(f"folder/{number}.jpg")
    _, metrics = stage.evaluate_files(place / "folder", "reference.npz", evaluators={}, num_samples=30)
    assert "30 JPEG files" in caplog.text
    assert any("30 JPEG files" in text for text in metrics["deviations"])


def test_an_output_that_cannot_be_written_is_refused_at_once(place, monkeypatch):
    """The metrics of hours would be lost."""
    monkeypatch.setattr(stage, "evaluate", lambda *arguments, **options: pytest.fail("it began to measure"))
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        stage.evaluate_files(place / "samples.npz", "reference.npz", place, evaluators={}, num_samples=30)
    (place / "file").touch()
    with pytest.raises(OSError, match="file"):
        stage.evaluate_files(place / "samples.npz", "reference.npz", place / "file/o.json", evaluators={})


def test_reference_file_is_copied_if_it_is_the_one_that_params_yaml_means(tmp_path, monkeypatch):
    """Every row of a table would be compared with a damaged download, or with another file of that name."""
    monkeypatch.chdir(tmp_path)
    np.savez("adm.npz", arr_0=np.zeros((4, 32, 32, 3), np.uint8))
    np.savez("large.npz", arr_0=np.zeros((4, 64, 64, 3), np.uint8))
    Path("damaged.npz").write_bytes(Path("adm.npz").read_bytes()[:-9])
    settings = {"kind": "file", "path": "adm.npz", "sha256": sha256("adm.npz")}

    def make(**changes):
        evaluation = EVALUATOR.model_copy(update={"reference": FileReference(**(settings | changes))})
        stage.make_reference("adm256", evaluation, {}, Path("made.npz"))

    for changes, message in (
        ({"sha256": "0" * 64}, f"adm.npz: its SHA-256 is {sha256('adm.npz')}, expected 0000"),
        ({"path": "absent.npz"}, "reference.path: there is no file 'absent.npz'"),
        ({"path": None}, r"evaluation\.adm256\.reference\.path is not set"),
        ({"path": "damaged.npz", "sha256": None}, "damaged.npz: not an npz file, or a truncated one"),
        ({"path": "large.npz", "sha256": None}, r"large.npz: its images have 64 x 64 .*adm256\.image_size is 32: give"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**changes)
        assert not Path("made.npz").exists()
    for checksum in (settings["sha256"], None):
        make(sha256=checksum)
        assert Path("made.npz").read_bytes() == Path("adm.npz").read_bytes()


def test_weights_of_inception_are_those_that_params_yaml_names(monkeypatch):
    """Features would be those of the file in the cache, and a table name that one."""
    opened = []
    monkeypatch.setattr(stage, "open_extractor", lambda *arguments: opened.append(arguments))
    monkeypatch.setenv("WEIGHTS", "/somewhere")
    for weights in ("$WEIGHTS/inception.pth", None):
        extractor = InceptionExtractor(name="inception", weights=weights)
        stage._extractor("adm256", EVALUATOR.model_copy(update={"extractor": extractor}))
    assert opened == [("inception", Path("/somewhere/inception.pth")), ("inception", None)]


def test_name_of_the_reference_is_that_of_the_file(monkeypatch):
    """A table would name the environment variable instead of the file of the ADM release."""
    settings = FileReference(kind="file", path="$ADM", sha256="0" * 64)
    evaluation = EVALUATOR.model_copy(update={"reference": settings})
    monkeypatch.delenv("ADM", raising=False)
    assert stage._name_of_file(evaluation) == {"reference_name": None, "reference_sha256": "0" * 64}
    monkeypatch.setenv("ADM", "/somewhere/VIRTUAL_imagenet512.npz")
    assert stage._name_of_file(evaluation)["reference_name"] == "VIRTUAL_imagenet512.npz"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a run, or --samples and --reference"),
        (["--samples", "samples.npz"], "give a run, or --samples and --reference"),
        (["dip", "--num-samples", "3"], "--num-samples is for samples that belong to no run"),
        (["--samples", "samples.npz", "--reference", "reference.npz", "--launcher", "slurm"], "slurm is for a run"),
        (["--samples", "absent.npz", "--reference", "reference.npz"], "no such file: absent.npz"),
        (["--samples", "", "--reference", "reference.npz"], "--samples '.': has no name to call the metrics by"),
        (["--samples", "samples.npz", "--reference", "reference.npz"], "expected 50000 samples, found 30"),
        (
            ["--samples", "samples.npz", "--reference", "reference.npz", "--output", "samples.npz"],
            "--output samples.npz: expected a name that ends in .json",
        ),
    ],
)
def test_mistakes_on_the_command_line(place, arguments, message):
    """A traceback, or a result of the wrong number of samples."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["evaluate", *arguments])
    assert message in str(stop.value.code)
    assert not list(place.glob("*.metrics.json"))


def test_command_line_prints_metrics_and_what_they_are_not(place, capsys):
    """A reader would take figures of 30 samples for the protocol's; and no params.yaml is needed."""
    files = ["--samples", "samples.npz", "--reference", "reference.npz"]
    cli.main(["evaluate", *files, "--num-samples", "30", "--output", "out.json"])
    printed = capsys.readouterr().out
    metrics = json.loads(Path("out.json").read_text())
    assert f"fid {metrics['fid']:.6g}\n" in printed and "recall " in printed
    assert "not the full protocol:\n- " in printed and "30 samples instead of 50,000" in printed
    assert printed.endswith("out.json\n")


def test_a_dataset_of_image_files_can_be_a_reference(load, content):
    """Statistics of an own dataset would be refused as if they were crops of photographs."""
    content["datasets"]["files"] = {"kind": "folder", "image_size": 8, "num_classes": 2, "num_images": 20}
    content["evaluation"]["photos"]["reference"] = {"kind": "dataset", "dataset": "files"}
    assert load(content).evaluation["photos"].reference.dataset == "files"
    content["datasets"]["files"]["image_size"] = 16
    with pytest.raises(params.ParamsError, match=r"evaluation\.photos\.reference\.dataset: 'files' has images of 16"):
        load(content)
