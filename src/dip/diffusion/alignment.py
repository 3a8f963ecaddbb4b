"""Representation alignment (REPA), as DDT does it (github.com/MCG-NJU/DDT): section 4.1 and appendix C.

The tokens of one block of the model (the 8th), seen through a small MLP, shall point in the direction of
DINOv2's tokens of the same patches of the clean image. The encoder comes from timm; its weights are read from
a file or from timm's cache and never fetched.

Shapes: B batch, N tokens of the model = patches of the encoder, D hidden size of the model, E width of the
encoder, H x W image.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.files import sha256
from dip.paths import given_path
from dip.precision import autocast

if TYPE_CHECKING:
    from dip import schema

ENCODER_IMAGE_SIZE = 224
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm names them on the Hugging Face hub


class PatchEncoder(nn.Module):
    """A frozen vision transformer that turns images into one feature vector per patch."""

    def __init__(
        self,
        vit: Any,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        image_size: int,
        weights_sha256: str | None = None,
    ) -> None:
        """Freeze the transformer.

        Args:
            vit: A timm VisionTransformer, or a module with its `forward_features`, `num_prefix_tokens`,
                `num_features` and `patch_embed.grid_size`.
            mean: Mean of each colour channel of its training images, in [0, 1].
            std: Standard deviation likewise.
            image_size: Side of the square images it takes, in pixels.
            weights_sha256: Checksum of the file with its weights, None if they come from no file.
        """
        super().__init__()
        self.vit: Any = vit.requires_grad_(False).eval()
        self.image_size = image_size
        self.weights_sha256 = weights_sha256
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """Channels of a feature vector, E."""
        return self.vit.num_features

    @property
    def grid_size(self) -> tuple[int, int]:
        """Patches per column and per row."""
        height, width = self.vit.patch_embed.grid_size
        return height, width

    def train(self, mode: bool = True) -> PatchEncoder:
        """Stay in evaluation mode, whatever the module around it does."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of the patches.

        Args:
            images: Clean images in [-1, 1], float32, shape (B, 3, H, W).

        Returns:
            Normalised patch tokens, row by row, float32, shape (B, N, E), without gradients; computed in bfloat16
            where the device has it.
        """
        # ASSUMPTION: antialiased bicubic resizing. DDT's is not antialiased: nearly the same from 256 pixels,
        # but from 512 it would alias (there DDT goes to 448 and resamples the features instead).
        size = (self.image_size, self.image_size)
        images = F.interpolate((images.float() + 1) / 2, size, mode="bicubic", antialias=True)
        with autocast("bf16", images.device):
            tokens = self.vit.forward_features((images - self.mean) / self.std)  # (B, prefix + N, E)
        return tokens[:, self.vit.num_prefix_tokens :].float()


class RepresentationAlignment(nn.Module):
    """The alignment term of the loss; `projector` is trained along with the model, `encoder` is not."""

    def __init__(
        self,
        settings: schema.Alignment,
        *,
        hidden_size: int,
        grid: int,
        encoder: PatchEncoder | None = None,
    ) -> None:
        """Load the encoder and make the projector, a 3-layer SiLU MLP D -> D -> D -> E.

        Args:
            settings: The `training.alignment` section of a run.
            hidden_size: D.
            grid: Patches of the model per column and per row, image size / patch size.
            encoder: Where the features come from; None: the encoder that the settings name.

        Raises:
            ValueError: No such encoder, or it cuts images into another number of patches than the model.
            FileNotFoundError: The encoder's weights are not on this machine.
        """
        super().__init__()
        if encoder is None:
            encoder = load_encoder(settings.encoder, settings.encoder_path)
        if encoder.grid_size != (grid, grid):
            raise ValueError(
                f"alignment compares patch by patch, but the model has {grid} x {grid} patches and the encoder "
                f"{encoder.grid_size[0]} x {encoder.grid_size[1]}; change image_size / patch_size or turn "
                "the run's alignment off (training.alignment: null)"
            )
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, encoder.width),
        )

    def trainable_state(self) -> dict[str, Tensor]:
        """What a checkpoint needs: the state dict without the encoder, for `load_state_dict(strict=False)`."""
        return {name: value for name, value in self.state_dict().items() if name.startswith("projector.")}

    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        """Negative cosine between projected tokens and features, averaged over patches and images.

        Args:
            tokens: Tokens of the aligned block for the noisy images, shape (B, N, D).
            images: The clean images x_1 in [-1, 1], shape (B, 3, H, W).

        Returns:
            A number in [-1, 1], float32; -1 is full agreement. The weight (0.5) is not in it.
        """
        return negative_cosine(self.projector(tokens), self.encoder(images))


def negative_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Minus the mean cosine of the angle between the last dimensions of a and b, in float32 or wider."""
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return -F.cosine_similarity(a.to(dtype), b.to(dtype), dim=-1).mean()


def load_encoder(name: str, path: str | Path | None = None) -> PatchEncoder:
    """Load a vision transformer of timm for images of 224 x 224 pixels, without using the network.

    Args:
        name: Its name in timm, such as `vit_base_patch14_dinov2.lvd142m` (16 x 16 patches, 768 channels).
        path: Its weights (.safetensors, or .pth with nothing but tensors); None: look in timm's cache, which
            is the Hugging Face cache.

    Raises:
        ValueError: timm has no such model, or the file holds the weights of another one.
        FileNotFoundError: There is no such file, or nothing in the cache; the message says how to bring it.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    file = find_weights(name, path)
    vit: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=ENCODER_IMAGE_SIZE)
    try:
        weights = timm.models.load_state_dict(str(file), weights_only=True)
        vit.load_state_dict(checkpoint_filter_fn(weights, vit))  # resamples the position embedding
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{file} does not hold the weights of {name}: {error}") from error
    data = timm.data.resolve_model_data_config(vit)
    return PatchEncoder(vit, data["mean"], data["std"], ENCODER_IMAGE_SIZE, sha256(file))


def find_weights(name: str, path: str | Path | None) -> Path:
    """The file with an encoder's weights: `path`, or the one in the Hugging Face cache; errors as in `load_encoder`."""
    from huggingface_hub import try_to_load_from_cache

    repository = find_repository(name)
    if path is not None:
        file = given_path(str(path), "training.alignment.encoder_path", f"the weights of {name}")
        if file.is_file():
            return file
        missing = f"there is no file {file} (training.alignment.encoder_path) with the weights of {name}"
    else:
        for candidate in WEIGHT_FILES:
            cached = try_to_load_from_cache(repository, candidate)
            if isinstance(cached, str):
                return Path(cached)
        missing = f"the weights of {name} are not in timm's cache, and they are never fetched during a run"
    raise FileNotFoundError(
        f"{missing}. Run `dip fetch` on a machine with internet that sees the same cache; or bring the file of "
        f"`hf download {repository} {WEIGHT_FILES[0]}` here and name it in the run's training.alignment.encoder_path; "
        "or turn its alignment off (training.alignment: null)"
    )


def find_repository(name: str) -> str:
    """Where on the Hugging Face hub timm keeps a model's weights.

    Raises:
        ValueError: timm has no such weights.
    """
    import timm

    try:
        configuration = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a known architecture with an unknown tag
        configuration = None
    if configuration is None or configuration.hf_hub_id is None:
        raise ValueError(f"timm has no weights named {name!r} (training.alignment.encoder)")
    return configuration.hf_hub_id
