"""Parameters and operations at the paper's scale, counted on the meta device (no memory, no arithmetic)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dip.model import build_model
from dip.model.convolution import set_plain

# Rows of Tables 1 to 3: settings that differ from XL/16, image size, our count and the paper's in millions.
ROWS = {
    "DiT-only 26 x 1152": ({"head": "none"}, 256, 628.56, 629),
    "DiT-only 32 x 1152": ({"head": "none", "depth": 32}, 256, 771.95, 772),
    "DiT-only 26 x 1280": ({"head": "none", "hidden_size": 1280}, 256, 775.54, 776),
    "DiT-only 26 x 1536": ({"head": "none", "hidden_size": 1536}, 256, 1115.89, 1116),
    "Standard MLP": ({"head": "mlp"}, 256, 630.18, 630),
    "Intra-Patch Attention": ({"head": "attention"}, 256, 629.84, 630),
    "Convolutional U-Net": ({"head": "unet"}, 256, 630.60, 631),
    "Convolutional U-Net, image input": ({"head": "unet", "head_input": "image"}, 256, 630.60, 631),
}


_built: dict[str, torch.nn.Module] = {}


def build(settings: SimpleNamespace, image_size: int) -> torch.nn.Module:
    """The model of some settings, the same one for every test: it has no values that a test could change."""
    key = f"{settings} {image_size}"
    if key not in _built:
        with torch.device("meta"):
            _built[key] = build_model(settings, image_size, num_classes=1000)
    return _built[key]


def millions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize("row", ROWS)
def test_parameters_are_those_of_the_paper(paper, row: str) -> None:
    """Wrong: another architecture than the paper's; the counts are the strongest check there is."""
    overrides, image_size, ours, printed = ROWS[row]
    count = millions(build(paper(**overrides), image_size))
    assert count == pytest.approx(ours, abs=0.01)
    assert round(count) == printed


def test_coordinate_head_has_the_parameters_of_pixnerd(paper) -> None:
    """Wrong: another decoder than PixNerd's (700.6M); the paper prints 700M, rounding down."""
    count = millions(build(paper("coordinate"), 256))
    assert count == pytest.approx(700.59, abs=0.01)
    assert int(count) == 700


def test_parameters_at_512_pixels(paper) -> None:
    """Wrong: DiP-XL/32 would differ from XL/16 in more than its patch embedding; the paper has one count."""
    xl_16, xl_32 = build(paper(), 256), build(paper(patch_size=32), 512)
    assert millions(xl_32) == pytest.approx(633.25, abs=0.01)
    assert millions(xl_32) - millions(xl_16) == pytest.approx(3 * (32**2 - 16**2) * 1152 / 1e6)


def test_head_adds_three_thousandths(paper) -> None:
    """Wrong: "+ 0.3 %" of the abstract would not hold."""
    without, with_head = (millions(build(paper(head), 256)) for head in ("none", "unet"))
    assert 100 * (with_head / without - 1) == pytest.approx(0.32, abs=0.005)


@pytest.mark.parametrize(
    ("head", "gflops"),
    [("none", 221.2), ("unet", 252.8), ("coordinate", 268.6)],
    ids=["DiT", "DiP", "PixNerd"],
)
def test_operations_of_one_forward_pass(paper, head: str, gflops: float) -> None:
    """Wrong: work is done twice or left out; the first and last were counted on the peers' own code."""
    model = build(paper(head), 256)
    set_plain(model, plain=True)
    with torch.device("meta"):
        inputs = torch.empty(1, 3, 256, 256), torch.empty(1), torch.empty(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, abs=0.1)
