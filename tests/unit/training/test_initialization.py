"""Starting from a checkpoint: formats of files, what is taken, and one clear error for each that cannot be used."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dip import cli
from dip.files import sha256
from dip.model import DiP, build_model
from dip.schema import Model, NoHead, Params, TrainingSpec, UNetHead
from dip.training.checkpoint import save_weights
from dip.training.ema import EMA
from dip.training.initialization import Report, load_backbone
from dip.training.loop import train

BACKBONE = Model(patch_size=4, hidden_size=16, depth=2, num_heads=2, head=NoHead(name="none"))
UNET = UNetHead(name="unet", depth=1, width=4)
Weights = dict[str, Tensor]


def make(seed: int, num_classes: int = 3, **changes: Any) -> DiP:
    """A model whose weights are all random, those that start as zero too."""
    torch.manual_seed(seed)
    model = build_model(BACKBONE.model_copy(update=changes), 16, num_classes)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def published(model: DiP) -> Weights:
    """The weights under the names of an improved DiT."""
    names = {"x_embedder.": "x_embedder.proj.", ".adaLN_modulation.": ".adaLN_modulation.0."}
    state = model.state_dict()
    for ours, theirs in names.items():
        state = {name.replace(ours, theirs): value for name, value in state.items()}
    return state


def under(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(value) for name, value in weights.items()}


def assert_backbone(model: DiP, source: DiP) -> None:
    """All of the model but heads is that of the source."""
    expected = source.state_dict()
    for name, value in model.state_dict().items():
        if not name.startswith(("head.", "intermediate.", "final_layer.")):
            assert torch.equal(value, expected[name]), name


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """What is said about a checkpoint that cannot be used; the model must stay as it was."""

    def say(content: Any, **changes: Any) -> str:
        path = content if isinstance(content, Path) else tmp_path / "checkpoint.pt"
        if path is not content:
            torch.save(content, path)
        model = make(1, **changes)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(ValueError) as error:
            load_backbone(model, path)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert str(error.value).startswith(f"{path} (training.init_from): ")
        assert "\n" not in str(error.value)
        return str(error.value)

    return say


def test_weights_of_this_project_give_a_fresh_head_a_trained_backbone(tmp_path: Path) -> None:
    """Wrong: "a pre-trained DiT with a fresh head" would not start from the DiT, or lose the head's start."""
    path, source, model = tmp_path / "model.safetensors", make(0), make(1, head=UNET)
    head = {name: value.clone() for name, value in model.state_dict().items() if name.startswith("head.")}
    save_weights(path, source.state_dict(), "{}")
    report = load_backbone(model, path)
    assert_backbone(model, source)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in head.items())
    backbone = sum(p.numel() for name, p in source.named_parameters() if not name.startswith("final_layer."))
    assert report == Report(
        path=str(path),
        sha256=sha256(path),
        layout="dip",
        prefix="",
        num_tensors=len(source.state_dict()) - 4,
        num_parameters=backbone,
        left={"final_layer (the model ends with a head)": 4},
        fresh={"head": len(head)},
    )
    assert f"took {backbone:,} parameters" in str(report) and f"head: {len(head)} tensors" in str(report)


def test_dit_only_takes_the_final_layer_too(tmp_path: Path) -> None:
    """Wrong: a converted DiT would not give the output of the original."""
    path, source, model = tmp_path / "model.safetensors", make(0), make(1)
    save_weights(path, source.state_dict(), "{}")
    report = load_backbone(model, path)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.state_dict().items())
    assert report.left == {} and report.fresh == {}
    assert "Left in the file: nothing. Starts anew: nothing." in str(report)


def test_head_of_the_source_is_left(tmp_path: Path) -> None:
    """Wrong: two heads that happen to fit would not be two trainings of heads; or a DiT-only model would be refused."""
    path, source = tmp_path / "model.safetensors", make(0, head=UNET, placement="hybrid")
    save_weights(path, source.state_dict(), "{}")
    with_head, without = make(1, head=UNET), make(1)
    report = load_backbone(with_head, path)
    assert_backbone(with_head, source)
    assert not torch.equal(with_head.head.output.weight, source.head.output.weight)
    assert set(report.left) == {
        "head (the head's, not the backbone's)",
        "intermediate (the head's, not the backbone's)",
    }
    assert load_backbone(without, path).fresh == {"final_layer": 4}
    assert_backbone(without, source)


def test_model_with_an_intermediate_head_keeps_it_fresh(tmp_path: Path) -> None:
    """Wrong: the intermediate placement, which ends with the DiT's final layer, could not start from a DiT."""
    path, source, model = tmp_path / "model.pt", make(0), make(1, head=UNET, placement="intermediate")
    torch.save(source.state_dict(), path)
    report = load_backbone(model, path)
    assert set(report.fresh) == {"intermediate"}
    assert torch.equal(model.final_layer.linear.weight, source.final_layer.linear.weight)


@pytest.mark.parametrize(
    ("arrange", "prefix", "left"),
    [
        (lambda w: w, "", []),
        (lambda w: under("module.", w), "", []),
        (lambda w: under("_orig_mod.", w), "", []),
        (lambda w: {"model": zeros(w), "ema": w, "opt": {"state": {0: {"exp_avg": torch.ones(1)}}}}, "ema.", ["model"]),
        (
            lambda w: {
                "state_dict": under("denoiser._orig_mod.", zeros(w))
                | under("ema_denoiser._orig_mod.", w)
                | {"diffusion_trainer.proj.0.weight": torch.ones(1)},
                "epoch": 3,
                "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
            },
            "state_dict.ema_denoiser.",
            ["denoiser", "diffusion_trainer"],
        ),
        (lambda w: {"model": zeros(w), "ema": {0.99: w, 0.9: zeros(w)}, "step": 3}, "ema.0.99.", ["model"]),
    ],
    ids=["raw", "distributed", "compiled", "SiT", "Lightning", "state of this project"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_formats(tmp_path: Path, arrange: Callable[[Weights], Any], prefix: str, left: list[str], legacy: bool) -> None:
    """Wrong: a file that the lineage's projects write could not be read, or not its averaged weights be found."""
    path, source, model = tmp_path / "model.ckpt", make(0), make(1)
    torch.save(arrange(published(source)), path, _use_new_zipfile_serialization=not legacy)
    report = load_backbone(model, path)
    assert (report.layout, report.prefix) == ("improved DiT", prefix)
    assert torch.equal(model.blocks[1].mlp.w2.weight, source.blocks[1].mlp.w2.weight)
    assert [part.split(" ")[0] for part in report.left] == left


def test_half_precision_is_widened(tmp_path: Path) -> None:
    """Wrong: the model's own dtype would change with that of a file."""
    path, source, model = tmp_path / "model.safetensors", make(0), make(1)
    save_file({name: value.bfloat16() for name, value in source.state_dict().items()}, path)
    load_backbone(model, path)
    weight = model.blocks[0].attn.qkv.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, source.blocks[0].attn.qkv.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 24}, "'x_embedder.weight' has shape (16, 48), the model needs (24, 48)"),
        ({"patch_size": 8}, "'x_embedder.weight' has shape (16, 48), the model needs (16, 192)"),
        ({"num_classes": 5}, "'y_embedder.embedding_table.weight' has shape (4, 16), the model needs (6, 16)"),
        ({"num_heads": 4}, "'blocks.0.attn.q_norm.weight' has shape (8,), the model needs (4,)"),
        ({"depth": 3}, "it has 2 transformer blocks, the model 3"),
        ({"depth": 1}, "it has 2 transformer blocks, the model 1"),
        ({"qk_norm": False}, "'blocks.0.attn.q_norm.weight' in it, which the model has not"),
    ],
)
@pytest.mark.parametrize("layout", [DiP.state_dict, published])
def test_other_sizes_name_both_shapes(
    refused: Callable[..., str], layout: Callable[[DiP], Weights], changes: dict[str, Any], message: str
) -> None:
    """Wrong: the training would start from half a backbone, or from torch's list of five hundred names."""
    assert message in refused(layout(make(0)), **changes)


def test_missing_parameter_is_named(refused: Callable[..., str]) -> None:
    """Wrong: a backbone without one of its parts would go unnoticed."""
    weights = published(make(0))
    del weights["blocks.1.mlp.w3.weight"]
    assert "no 'blocks.1.mlp.w3.weight' in it, which the model has with shape (42, 16)" in refused(weights)


def test_parameter_that_the_model_has_not_is_named(refused: Callable[..., str]) -> None:
    """Wrong: a backbone of another design would be loaded without what makes its output."""
    weights = published(make(0)) | {"blocks.1.attn.qkv.bias": torch.zeros(48)}
    assert "'blocks.1.attn.qkv.bias' in it, which the model has not" in refused(weights)


def test_weights_that_are_not_finite_are_refused(refused: Callable[..., str]) -> None:
    """Wrong: the first step's loss would be NaN, and the message would ask for a lower learning rate."""
    weights = published(make(0))
    weights["blocks.0.mlp.w2.weight"][3, 4] = float("nan")
    assert "'blocks.0.mlp.w2.weight' has values that are not finite" in refused(weights)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_mean_nothing_without_scales_are_refused(refused: Callable[..., str], dtype: torch.dtype) -> None:
    """Wrong: whole numbers of a quantised checkpoint would be trained on as if they were the weights."""
    weights = published(make(0))
    weights["blocks.0.mlp.w2.weight"] = weights["blocks.0.mlp.w2.weight"].to(dtype)
    assert f"'blocks.0.mlp.w2.weight' is of {dtype}, expected torch.float32, " in refused(weights)


class Code:
    """Writes a file where it is unpickled."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.evidence),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(refused: Callable[..., str], tmp_path: Path, legacy: bool) -> None:
    """Wrong: a checkpoint from the internet could do anything on the node."""
    path, evidence = tmp_path / "model.pt", tmp_path / "evidence"
    content = {"model": published(make(0)), "callback": Code(evidence)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert "holds code or objects ('posix.mkdir') beside its tensors" in refused(path)
    path.write_bytes(pickle.dumps(Code(evidence), protocol=2))
    refused(path)
    assert not evidence.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "legacy.pt"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_file_is_refused(refused: Callable[..., str], tmp_path: Path, name: str, share: float) -> None:
    """Wrong: an interrupted copy would end in a traceback of torch, or be loaded in part."""
    path, weights = tmp_path / name, make(0).state_dict()
    if path.suffix == ".pt":
        torch.save(weights, path, _use_new_zipfile_serialization=name != "legacy.pt")
    else:
        save_file(weights, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "not a readable checkpoint: cut short" in refused(path)


def test_file_that_is_no_checkpoint(refused: Callable[..., str], tmp_path: Path) -> None:
    """Wrong: a page of an error saved under a checkpoint's name would end in a traceback."""
    page = tmp_path / "model.ckpt"
    page.write_text("<!DOCTYPE html><title>404</title>")
    assert "not a readable checkpoint" in refused(page)
    assert "there is no such file" in refused(tmp_path / "absent.pt")
    assert "no backbone of a DiT in it" in refused({"encoder.weight": torch.zeros(2)})
    assert "no backbone of a DiT in it" in refused([1, 2])


def test_report_goes_into_json(tmp_path: Path) -> None:
    """Wrong: params.json could not be written at the end of a training of days."""
    path = tmp_path / "model.pt"
    torch.save(published(make(0)), path)
    content = asdict(load_backbone(make(1, head=UNET), path))
    assert json.loads(json.dumps(content)) == content


def started(spec: TrainingSpec, path: Path, **changes: Any) -> TrainingSpec:
    """The spec of a training that starts from a file."""
    return spec.model_copy(update={"training": spec.training.model_copy(update={"init_from": str(path), **changes})})


@pytest.fixture
def dit(workplace: Path, spec: TrainingSpec) -> Path:
    """Weights of the tiny DiT-only model, all random."""
    torch.manual_seed(7)
    model = build_model(spec.model.model_copy(update={"head": NoHead(name="none")}), 8, 2)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    torch.save(published(model), workplace / "dit.pt")
    return workplace / "dit.pt"


def test_training_starts_from_the_weights_and_so_does_their_average(dit: Path, spec: TrainingSpec) -> None:
    """Wrong: the published average would be mostly the random start, and params.json would not say what was taken."""
    train(started(spec, dit, learning_rate=1e-12, ema_decay=0.999), Path("work"))
    weights, source = load_file("work/model.safetensors"), torch.load(dit, weights_only=True)
    torch.testing.assert_close(weights["blocks.1.mlp.w1.weight"], source["blocks.1.mlp.w1.weight"])
    torch.testing.assert_close(
        weights["y_embedder.embedding_table.weight"], source["y_embedder.embedding_table.weight"]
    )
    taken = json.loads(Path("work/params.json").read_text())["init_from"]
    assert taken["sha256"] == sha256(dit) and taken["layout"] == "improved DiT"
    assert taken["left"] == {"final_layer (the model ends with a head)": 4} and list(taken["fresh"]) == ["head"]


def test_resumed_training_does_not_read_the_weights_again(
    dit: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: an interrupted training would begin again from the start, or need a file that is gone."""
    spec = started(spec, dit)
    train(spec, Path("uninterrupted"))
    original = EMA.update

    def update(ema: EMA, model: torch.nn.Module, step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt
        original(ema, model, step)

    with monkeypatch.context() as patch:
        patch.setattr(EMA, "update", update)
        with pytest.raises(KeyboardInterrupt):
            train(spec, Path("interrupted"), save_seconds=0)
    dit.unlink()
    train(spec, Path("interrupted"))
    interrupted, uninterrupted = Path("interrupted"), Path("uninterrupted")
    weights = [(work / "model.safetensors").read_bytes() for work in (interrupted, uninterrupted)]
    assert weights[0] == weights[1]
    taken = [json.loads((work / "params.json").read_text())["init_from"] for work in (interrupted, uninterrupted)]
    assert taken[0] == taken[1]


def test_other_content_is_another_training(
    dit: Path, load: Callable[..., Params], content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: after a change of the file, `dip train` would publish what began from the old one."""
    content["runs"]["dip"]["training"]["init_from"] = "$DIP_TEST_WEIGHTS/dit.pt"
    load(content)
    monkeypatch.setenv("DIP_TEST_WEIGHTS", str(dit.parent))
    checksums = []
    for bias in (0.0, 1.0):
        weights = torch.load(dit, weights_only=True)
        torch.save(weights | {"x_embedder.proj.bias": weights["x_embedder.proj.bias"] + bias}, dit)
        cli.main(["train", "dip"])
        checksums.append(json.loads(Path("results/demo/runs/dip/params.json").read_text())["init_from"]["sha256"])
    assert checksums[0] != checksums[1]
    monkeypatch.delenv("DIP_TEST_WEIGHTS")
    with pytest.raises(SystemExit, match=r"runs\.dip\.training\.init_from is .* variable DIP_TEST_WEIGHTS is not set"):
        cli.main(["train", "dip"])
    monkeypatch.setenv("DIP_TEST_WEIGHTS", "/absent")
    with pytest.raises(SystemExit, match=r"runs\.dip\.training\.init_from: there is no file '/absent/dit\.pt'"):
        cli.main(["train", "dip"])
