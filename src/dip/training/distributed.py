"""The processes of one training: how they find each other, and which images of the global batch each works on.

W processes of ranks 0 to W - 1, B global batch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import traceback
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dip.environment import pick_device

_log = logging.getLogger(__name__)
_TIMEOUT = timedelta(minutes=15)  # how long a process that hangs, rather than dies, can hold up the others


@dataclass(frozen=True)
class Place:
    """Where a process stands among those of its training.

    Attributes:
        rank: 0 to size - 1.
        size: Number of processes.
        local_rank: Number of the process on its machine.
        address: Where the processes meet, `host:port`; None for one process.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    address: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Place:
        """What torchrun (RANK, WORLD_SIZE, ...) or srun (SLURM_PROCID, ...), and so submitit, say to a process.

        A job's own shell, which no srun started, is one process however many tasks the job has.

        Raises:
            ValueError: A variable is missing or is not a number.
        """
        torchrun = "RANK" in environment and "WORLD_SIZE" in environment
        size_key = "WORLD_SIZE" if torchrun else "SLURM_STEP_NUM_TASKS"
        try:
            if int(environment.get(size_key, "1")) == 1:
                return cls()
            if torchrun:
                address = f"{environment['MASTER_ADDR']}:{int(environment['MASTER_PORT'])}"
                rank, local_rank = int(environment["RANK"]), int(environment["LOCAL_RANK"])
            else:
                address = _slurm_address(environment)
                rank, local_rank = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
            return cls(rank, int(environment[size_key]), local_rank, address)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{size_key} says that this is one process of several, but the variables that torchrun or srun set "
                f"beside it are not whole ({type(error).__name__}: {error}); unset {size_key}, and have `dip` start "
                "the processes with --processes N or --launcher slurm"
            ) from None


@dataclass(frozen=True)
class Group:
    """The processes of a training, seen from one of them.

    Attributes:
        place: This process.
        device: What it computes on.
        control: For small messages between the hosts, beside the gradients; None for one process. It also notices
            a process that died, where NCCL would wait.
    """

    place: Place
    device: torch.device
    control: Any = None

    @property
    def size(self) -> int:
        return self.place.size

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.place.rank == 0

    @property
    def num_devices(self) -> int:
        """GPUs in use, or threads on CPUs."""
        return self.size * (1 if self.device.type == "cuda" else torch.get_num_threads())

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, element by element, in float64 on the CPU; waits for the device."""
        values = values.detach().double().cpu()
        if self.size > 1:
            dist.all_reduce(values, group=self.control)
            values /= self.size
        return values

    def maximum(self, *values: float) -> list[float]:
        """The largest of each number over the processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.control)
        return tensor.tolist()

    def from_main(self, value: int) -> int:
        """The main process's value, everywhere."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value)
        dist.broadcast(tensor, src=0, group=self.control)
        return int(tensor)

    def wait_for_all(self) -> None:
        """Go on when every process is here."""
        if self.size > 1:
            dist.barrier(self.control)

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes."""
        if self.size == 1:
            return module
        # True of 1 x 1 convolutions only, whose strides differ where there is but one value to stride over.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions of PyTorch rename broadcast_buffers
            return DistributedDataParallel(
                module,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                broadcast_buffers=False,  # all are constants
                gradient_as_bucket_view=True,
            )


def gradients_shared(module: nn.Module, *, last: bool) -> contextlib.AbstractContextManager[None]:
    """Around forward and backward pass of a micro-batch: the processes exchange gradients with the last one only."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return contextlib.nullcontext()


class Agreement:
    """The largest request of any process, known to all of them at the same step.

    One process knows its own at once. With several the requests travel while a step is computed, so that nobody
    waits for them, and all processes know of them after the next step.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._sent: tuple[Tensor, Any] | None = None

    def __call__(self, request: int) -> int:
        """Tell the others of this process's request; every process calls this once a step."""
        if self._group.size == 1:
            return request
        agreed = 0
        if self._sent is not None:
            tensor, work = self._sent
            work.wait()
            agreed = int(tensor)
        tensor = torch.tensor(0 if agreed else request)
        self._sent = tensor, dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group.control, async_op=True)
        return agreed


@contextlib.contextmanager
def join() -> Iterator[Group]:
    """Join the processes of this training that torchrun or srun started; without either there is one.

    A process that fails prints its traceback and ends; the others notice within a step and end too.

    Raises:
        ValueError: The environment says only half of what is needed.
    """
    place = Place.of(os.environ)
    device = pick_device(place.local_rank)
    if place.size == 1:
        yield Group(place, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(
        backend, init_method=f"tcp://{place.address}", rank=place.rank, world_size=place.size, timeout=_TIMEOUT
    )
    control = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    try:
        group = Group(place, device, control)
        yield group
        group.wait_for_all()  # the main process writes the result while the others wait here
    except Exception:
        _log.error("process %d of %d failed:\n%s", place.rank, place.size, traceback.format_exc())
        raise  # without leaving the group in order, for which it would wait: the process is about to end
    dist.destroy_process_group()


def microbatches(batch_size: int, place: Place, micro_batch: int | None = None) -> list[range]:
    """Which images of the global batch a process works on, in the portions it takes at a time.

    Args:
        batch_size: B.
        place: The process.
        micro_batch: Most images at a time; None: all of the process's share, B / W.

    Returns:
        Ranges of indices in the global batch, of equal length, so that the mean of their losses is that of all.

    Raises:
        ValueError: The batch does not divide by the processes, or the share by the micro-batch; or this is below 1.
    """
    share, rest = divmod(batch_size, place.size)
    if rest:
        raise ValueError(
            f"training.batch_size is {batch_size}, which is not divisible by {place.size} processes; use a number of "
            "processes that divides it"
        )
    size = share if micro_batch is None else min(micro_batch, share)
    if size < 1 or share % size:
        raise ValueError(
            f"--micro-batch: each process has {share} images of a batch, which is not divisible by the micro-batch of "
            f"{size}; choose a --micro-batch that divides {share}"
        )
    first = place.rank * share
    return [range(start, start + size) for start in range(first, first + share, size)]


def _slurm_address(environment: Mapping[str, str]) -> str:
    """The first node of the step, and a port that another step on the node is not likely to use."""
    host = "127.0.0.1"
    if environment.get("SLURM_STEP_NUM_NODES", "1") != "1":
        names = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\]([^\[,]*))?", environment["SLURM_STEP_NODELIST"])
        if names is None:
            raise ValueError(f"SLURM_STEP_NODELIST is '{environment['SLURM_STEP_NODELIST']}'")
        host = "".join(part or "" for part in names.groups())
    keys = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    step = ".".join(environment.get(key, "0") for key in keys)
    return f"{host}:{10_000 + zlib.crc32(step.encode()) % 20_000}"
