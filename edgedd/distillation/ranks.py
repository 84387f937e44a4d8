"""Several processes for one distillation: `torchrun --nproc-per-node N -m edgedd distill ...`.

Every rank runs the same program on the same random numbers, so that all hold the same set and the same networks. Only
the passes of real images, which carry no gradient, are divided: whole classes, or rows of a batch, whose results are
exchanged before they enter the loss. Gradients of factors and label logits are averaged, so that no rank drifts away.
Rank 0 writes the checkpoints and the file, shows progress and searches the recipe.
"""

import atexit
import io
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # before `join`: its defaults would keep the group and its threads past the end

from edgedd.errors import EdgeddError, SettingError

TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run; alone by default, where nothing is exchanged or copied."""

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def own(self, count: int) -> range:
        """Which of `count` classes or rows this rank computes; together the ranks have each once."""
        return range(self.rank, count, self.size)

    def gathered(self, part: torch.Tensor, count: int) -> torch.Tensor:
        """Values (k, ...) of `own(count)`, without gradient -> those of all ranks, (count, ...)."""
        if self.size == 1:
            return part
        whole = part.new_zeros((count, *part.shape[1:]))
        whole[list(self.own(count))] = part
        self.add([whole])
        return whole

    def add(self, values: Sequence[torch.Tensor]) -> None:
        """Replace float tensors by their sums over the ranks, in one exchange. Raises EdgeddError: see `_lost`."""
        if self.size == 1:
            return
        flat = torch.cat([value.reshape(-1) for value in values])
        try:
            dist.all_reduce(flat)
        except RuntimeError as error:
            raise _lost(self.rank) from error
        totals = torch.split(flat, [value.numel() for value in values])
        for value, total in zip(values, totals, strict=True):
            value.copy_(total.reshape(value.shape))

    def average(self, leaves: Sequence[torch.Tensor], loss: torch.Tensor) -> torch.Tensor:
        """Let gradients of `leaves` be their means over the ranks -> the mean of the loss (), which is the run's."""
        if self.size == 1:
            return loss.detach()
        value = loss.detach().clone()
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        values = [leaf.grad for leaf in leaves if leaf.grad is not None]
        self.add([value, *values])
        torch._foreach_div_([value, *values], self.size)
        return value

    def agreed(self, state: Any) -> Any:
        """Rank 0's state of tensors, numbers and strings, on every rank. Raises EdgeddError: see `_lost`."""
        if self.size == 1:
            return state
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = [buffer.getvalue()]
        try:
            dist.broadcast_object_list(content)
        except RuntimeError as error:
            raise _lost(self.rank) from error
        return torch.load(io.BytesIO(content[0]), weights_only=True, map_location="cpu")


ALONE = Ranks()


def speaks() -> bool:
    """Whether this process shows progress and prints: rank 0 of torchrun's, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def join(device: str, num_classes: int) -> Ranks:
    """The group of processes that torchrun started, through gloo on the CPU and nccl on cuda; alone without torchrun.

    A later call gives the same group, which lives as long as the process. A rank that does not answer for
    TIMEOUT, or dies, ends the run on the others. Raises SettingError for more ranks than classes, EdgeddError when the
    others do not come.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    if size > num_classes:
        raise SettingError(f"{size} ranks for {num_classes} classes, wanted whole classes for each: start fewer ranks")
    if dist.is_initialized():
        return Ranks(rank, size)
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    except RuntimeError as error:
        raise EdgeddError(f"rank {rank} of {size} does not reach the others: check torchrun's address") from error
    atexit.register(dist.destroy_process_group)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: _stop(rank))  # torchrun sends it when another rank has died
    return Ranks(rank, size)


def _stop(rank: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _lost(rank)


def _lost(rank: int) -> EdgeddError:
    return EdgeddError(f"rank {rank} has lost the others: the checkpoint is whole, start the run again with --resume")
