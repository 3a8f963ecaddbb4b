"""Figures of experiments that need no run: they compute, or train, what they show (`figures:` of params.yaml)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from numpy.typing import NDArray
from pydantic import Field

from dip.schema.base import AsPairs, Count, Name, Positive, Real, Schema, Seed, Text

Index = Annotated[int, Field(ge=0)]


class Shown(Schema):
    """What all figures have."""

    caption: Text
    # Made when it is named or by the target `figures`, not with everything else of its study.
    on_request: Annotated[bool, Field(exclude=True)] = False


class Experiment(Shown):
    """What all experiments have."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Runs whose parameters the experiment takes; their results are not needed."""
        return ()


class Theory(Experiment):
    """Denoising operators of Gaussian data, a signal cut into patches (appendix A)."""

    kind: Literal["theory"]
    num_patches: Annotated[Count, Field(ge=2)] = 8
    patch_size: Annotated[Count, Field(ge=2)] = 8  # values of a patch
    decay: Annotated[Real, Field(gt=1)] = 1.5  # a: the eigenvalues of the covariance are i^-a
    low_share: Annotated[Real, Field(gt=0, lt=1)] = 0.125  # of the directions that are low frequencies
    num_times: Annotated[Count, Field(ge=2)] = 500


class Square(Schema):
    """A square of pixels."""

    top: Index
    left: Index
    size: Count

    def cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The square of an image of shape (H, W, ...), shape (size, size, ...)."""
        return pixels[self.top : self.top + self.size, self.left : self.left + self.size]


class OverfitSeries(Schema):
    """One model that learns the photograph."""

    run: Name  # whose model, optimiser and solver it has
    learning_rate: Positive


class Overfit(Experiment):
    """Overfitting a single photograph (Figure 3)."""

    kind: Literal["overfit"]
    photograph: Name
    crop: Square  # what is learned, in pixels of the reduced photograph
    box_filter: Count = 1  # the photograph is reduced by this factor before cropping
    details: tuple[Square, ...] = ()  # shown enlarged, in pixels of the crop
    series: Annotated[dict[Text, OverfitSeries], Field(min_length=1), AsPairs]
    num_steps: Annotated[Count, Field(ge=2)]
    batch_size: Count
    measure_every: Count  # steps
    num_samples: Count = 4
    seed: Seed = 0

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(series.run for series in self.series.values()))


class InputRates(Schema):
    """A learning rate for either input of the head."""

    patch: Positive
    image: Positive


class Manifold(Experiment):
    """A head that sees patches or the whole image, on a toy manifold (appendix D, Figure 12)."""

    kind: Literal["manifold"]
    # How often each limb of the tree forks; more than 12 times, branches are finer than the lines of the figure.
    branchings: Annotated[Index, Field(le=12)] = 5
    num_points: Annotated[Count, Field(ge=2)] = 8  # of an image; each plays a patch
    hidden_size: Count = 32
    depth: Count = 2
    num_heads: Count = 2
    head_width: Count = 128  # of the head that sees its own patch
    learning_rate: InputRates
    num_steps: Annotated[Count, Field(ge=2)]
    batch_size: Count
    sampling_steps: Count = 50
    num_images: Count  # generated for each seed
    num_seeds: Count = 3
    first_seed: Seed = 0
