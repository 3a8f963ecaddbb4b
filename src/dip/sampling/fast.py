"""Sampling near the limit of the device, with the samples of the plain path to rounding.

What `dip.speed` calls plain is `dip.diffusion.sampler.sample` on the model as it is trained. At the other speeds what
depends on time and label alone, a third of the weights, is computed for many steps at once, and weights are held in the
dtype that is computed in. Compiled on a GPU, each step is one CUDA graph.

Shapes: B batch, C channels, H x W image, D hidden size, L blocks, R labels (those of the batch that differ, then "no
class"), S steps of one portion.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from dip.diffusion.evaluations import evaluation_times, is_guided
from dip.diffusion.sampler import Velocity, guided, integrate, sample
from dip.model import DiP
from dip.model.assembly import Conditioning
from dip.model.convolution import PatchConv
from dip.model.layers import SwiGLU
from dip.precision import autocast, compute_dtype
from dip.sampling.packed import can_pack, pack
from dip.speed import set_speed

if TYPE_CHECKING:
    from dip.schema import Sampling

_log = logging.getLogger(__name__)
_TABLE_BYTES = 2**28  # of what is computed ahead for a portion of the steps


class FastSampler:
    """Draws batches of images: `sampler(x_0, y)`. The model it is given is no longer fit for training."""

    def __init__(self, model: DiP, sampling: Sampling, *, speed: str | None = None) -> None:
        """Make the model ready.

        Args:
            model: On its device, with its weights, which are cast in place.
            sampling: Solver, steps, guidance and precision.
            speed: As `dip.speed.set_speed` takes it.

        Raises:
            ValueError: As `dip.speed.set_speed`.
        """
        self.device = next(model.parameters()).device
        self.speed = set_speed(model, speed)
        self.sampling = sampling
        self._model = model.eval()
        self._graphs: dict[tuple[bool, torch.Size], _Graph] = {}
        self._may_fall_back = speed is None and self.speed == "compiled"
        if self.speed != "plain":
            dtype = compute_dtype(sampling.precision, self.device)
            _hold_in(model, dtype)
            if self.device.type == "cpu" and can_pack(dtype):
                pack(model)

    @torch.inference_mode()
    def __call__(self, x_0: Tensor, y: Tensor, *, num_steps: int | None = None) -> Tensor:
        """Draw images.

        Args:
            x_0: Noise, float32, shape (B, C, H, W).
            y: Labels, int64, shape (B,).
            num_steps: Steps in the place of the sampling's, to warm up with.

        Returns:
            Images, float32, about [-1, 1], shape (B, C, H, W).
        """
        sampling = self.sampling
        if num_steps is not None:
            sampling = sampling.model_copy(update={"num_steps": num_steps})
        if self._may_fall_back:
            self._try_to_compile(x_0, y)
        with autocast(self.sampling.precision, self.device, keep_casts=self.speed == "plain"):
            if self.speed == "plain":
                return sample(self._model, x_0, y, sampling, self._model.num_classes)
            return integrate(self.velocity(y, sampling), x_0, sampling)

    def settle(self, batch_size: int, image_size: int) -> None:
        """Find out whether this machine compiles, so that `speed` is what samples are drawn with.

        Args:
            batch_size: Of the batches to come, for which a GPU compiles.
            image_size: H = W in pixels.
        """
        if self._may_fall_back:
            x_0 = torch.zeros(batch_size, 3, image_size, image_size, device=self.device)
            self._try_to_compile(x_0, torch.zeros(batch_size, dtype=torch.int64, device=self.device))

    def forget_graphs(self) -> None:
        """Free what the recorded steps hold; they are recorded again where they are needed."""
        self._graphs.clear()

    def _try_to_compile(self, x_0: Tensor, y: Tensor) -> None:
        """Draw once; without a speed that was asked for, a machine that cannot compile goes on without."""
        self._may_fall_back = False
        try:
            self(x_0, y, num_steps=2)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            _log.warning("torch.compile or CUDA graphs do not work here (%s); sampling at the speed 'fast'", reason)
            self.speed = set_speed(self._model, "fast")

    def velocity(self, y: Tensor, sampling: Sampling) -> Velocity:
        """Guided velocity of a batch with labels y of shape (B,) at `evaluation_times`; not for the speed "plain"."""
        table = _Table(self._model, y, evaluation_times(sampling), self._model.num_classes)

        def velocity(x_t: Tensor, t: float) -> Tensor:
            guidance = is_guided(sampling, t)
            t_emb, blocks, final = table.at(t, both=guidance)
            assert isinstance(blocks, Tensor)
            return self._step(guidance, [x_t, t_emb, blocks, *([] if final is None else [final])])

        return velocity

    def _step(self, guidance: bool, inputs: list[Tensor]) -> Tensor:
        """One velocity, float32, shape (B, C, H, W); `inputs` are x_t and the parts of its `Conditioning`."""

        def step(x_t: Tensor, t_emb: Tensor, blocks: Tensor, final: Tensor | None = None) -> Tensor:
            conditioning = Conditioning(t_emb, blocks.unbind(), final)
            both = self._model.denoise(torch.cat([x_t, x_t]) if guidance else x_t, conditioning)
            assert isinstance(both, Tensor)
            return guided(both, self.sampling.cfg_scale) if guidance else both.float()

        if self.speed != "compiled" or self.device.type != "cuda":
            return step(*inputs)
        key = guidance, inputs[0].shape
        if key not in self._graphs:
            _log.info("compiling a step of %d images; this takes a minute", len(inputs[0]))
            self._graphs[key] = _Graph(step, inputs)
        return self._graphs[key](inputs)


class _Table:
    """Conditioning of every step, computed for many steps and each label once.

    Args:
        model: The model.
        y: Labels of the batch, shape (B,).
        times: Where velocities are taken.
        null_class: Label of the unconditional pass.
    """

    def __init__(self, model: DiP, y: Tensor, times: list[float], null_class: int) -> None:
        self._model, self._times = model, sorted(set(times))
        labels, self._rows = y.unique(return_inverse=True)  # (R - 1,), (B,)
        self._labels = torch.cat([labels, labels.new_tensor([null_class])])  # (R,)
        bytes_per_step = 4 * len(self._labels) * sum(block.numel() for block in _biases(model))
        self._portion = max(1, _TABLE_BYTES // bytes_per_step)
        self._first, self._known = 0, 0  # which times stand in the table
        self._conditioning: Conditioning | None = None

    def at(self, t: float, *, both: bool) -> Conditioning:
        """The batch's conditioning at a time; with `both` that of its labels, then as many of "no class".

        Returns:
            t_emb of shape (B, D), blocks as one tensor of shape (L, B, 1, 6 D), and final; 2 B with `both`.
        """
        step = self._times.index(t)
        if not self._first <= step < self._known:
            self._compute(step)
        assert self._conditioning is not None
        rows = torch.cat([self._rows, torch.full_like(self._rows, len(self._labels) - 1)]) if both else self._rows
        rows = rows + (step - self._first) * len(self._labels)
        t_emb, blocks, final = self._conditioning
        assert isinstance(blocks, Tensor)
        return Conditioning(t_emb[rows], blocks[:, rows], None if final is None else final[rows])

    def _compute(self, step: int) -> None:
        self._conditioning = None  # before the next one takes memory
        times = self._times[step : step + self._portion]
        t = torch.tensor(times, device=self._labels.device).repeat_interleave(len(self._labels))  # (S R,)
        t_emb, blocks, final = self._model.conditioning(t, self._labels.repeat(len(times)))
        self._conditioning = Conditioning(t_emb, torch.stack(list(blocks)), final)
        self._first, self._known = step, step + len(times)


class _Graph:
    """A step recorded as a CUDA graph: its kernels start without the host.

    Args:
        step: What to record.
        inputs: Tensors of the shapes that it will be called with.
    """

    def __init__(self, step: Callable[..., Tensor], inputs: list[Tensor]) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # compiles and chooses kernels, which must not be recorded
                step(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = step(*self._inputs)

    def __call__(self, inputs: list[Tensor]) -> Tensor:
        for own, tensor in zip(self._inputs, inputs, strict=True):
            own.copy_(tensor)
        self._graph.replay()
        return self._output.clone()  # the next replay writes over it, and solvers keep velocities


def _hold_in(model: DiP, dtype: torch.dtype) -> None:
    """Keep the weights of products and convolutions in the dtype of their products, as autocast casts them."""
    for module in model.modules():
        if isinstance(module, PatchConv):
            module.freeze(dtype)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.startswith("t_embedder."):
            module.to(dtype)
    for module in model.modules():
        if isinstance(module, SwiGLU) and module.w1.weight.is_cuda:
            module.freeze()


def _biases(model: DiP) -> Iterable[Tensor]:
    """Biases of all modulations; they have as many values as the modulations of one image."""
    for name, parameter in model.named_parameters():
        if name.endswith("adaLN_modulation.bias"):
            yield cast("Tensor", parameter)
