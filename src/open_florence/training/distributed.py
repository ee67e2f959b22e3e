"""Several processes under torchrun: sums and averages over them, and a model cut into shares (FSDP2).

Every function does the obvious with one process, so the trainer has one path.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from open_florence.errors import OpenFlorenceError
from open_florence.training.batches import IGNORE, Batch, Chunk, StepBatch
from open_florence.training.blocks import blocks

BUCKET = 1 << 24
"""Numbers that are averaged in one go: few messages, and 64 MB of memory for them."""

PATIENCE = timedelta(hours=4)
"""How long processes wait for one another: the first one evaluates while the others wait."""

Thing = TypeVar("Thing")
AnyBatch = TypeVar("AnyBatch", bound=StepBatch)
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def join() -> tuple[int, int]:
    """This process's rank and the number of processes, joined by gloo, and NCCL for GPUs, when torchrun is used.

    Each process then takes the GPU of its local rank, if there are GPUs.
    """
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return dist.get_rank(), dist.get_world_size()


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(value: float) -> float:
    """The sum of a number over all processes."""
    if world() == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64, device=_device())
    dist.all_reduce(number)
    return float(number)


def gather(thing: Thing) -> list[Thing]:
    """What every process says, in the order of their ranks."""
    if world() == 1:
        return [thing]
    said: list[Any] = [None] * world()
    dist.all_gather_object(said, thing)
    return said


def broadcast_parameters(module: nn.Module) -> None:
    """Gives every process the first one's parameters."""
    if world() > 1:
        for parameter in module.parameters():
            dist.broadcast(parameter.data, 0)


def average_gradients(module: nn.Module) -> None:
    """Replaces every gradient by its mean over the processes, one without a gradient counting as zero.

    A head without a label in one process's batch has no gradient there. Where no process has one, none is made, so
    that the optimiser leaves the parameter alone as it would with one process.
    """
    if world() == 1:
        return
    trained = [p for p in module.parameters() if p.requires_grad]
    present = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=_device())
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, somewhere in zip(trained, present.tolist(), strict=True):
        if somewhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        pieces = torch.split(flat / world(), [gradient.numel() for gradient in bucket])
        for gradient, piece in zip(bucket, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def shard(module: AnyModule) -> AnyModule:
    """A copy of a module of which every process holds its share: FSDP2 (`fully_shard`) over the blocks and the rest.

    The copy's parameters are DTensors of the same names. A block is put together for the time it computes. The copy is
    to be called as a module, every process as often as the others. Raises OpenFlorenceError for what cannot be cut.
    """
    try:
        from torch.distributed.fsdp import fully_shard
    except ImportError as error:
        raise OpenFlorenceError('strategy "fsdp" needs PyTorch 2.6 or newer, or use "ddp"') from error
    for name, parameter in module.named_parameters():
        if parameter.ndim == 0:
            raise OpenFlorenceError(f'strategy "fsdp" cannot cut {name}, a single number, into shares: use "ddp"')
    mesh = init_device_mesh(next(module.parameters()).device.type, (world(),))
    sharded = copy.deepcopy(module)
    for block in blocks(sharded):
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    return sharded


def with_equal_chunks(batch: AnyBatch) -> AnyBatch:
    """The batch with as many chunks as the largest of all processes, by chunks of one row and no token.

    A sharded block is put together by all processes at once, so all must call it equally often.
    """
    if not isinstance(batch, Batch):
        return batch
    most = max(gather(len(batch.chunks)))
    one = torch.zeros(1, 1, dtype=torch.long)
    empty = Chunk((), one, one + 1, torch.full_like(one, IGNORE), one[0])
    return replace(batch, chunks=batch.chunks + (empty,) * (most - len(batch.chunks)))


def whole(tree: Any) -> Any:
    """The same dicts and lists with every sharded tensor put together; all processes must ask at once."""
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    return tree.full_tensor() if _is_sharded(tree) else tree


def placed_like(tensor: Tensor, target: Tensor, replicated: bool = False) -> Tensor:
    """A whole tensor on the device of `target`, cut into the same shares if that is cut; or whole in every process."""
    tensor = tensor.to(target.device)
    if not _is_sharded(target):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

    assert isinstance(target, DTensor)
    placements = [Replicate()] * target.device_mesh.ndim if replicated else target.placements
    return distribute_tensor(tensor, target.device_mesh, placements)


def _is_sharded(value: Any) -> bool:
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _device() -> torch.device:
    """Where the processes' messages must lie."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
