"""The contrastive stage: the tower and a text encoder learn which texts belong to which images, before any sequence.

UniCL (Yang et al., arXiv 2204.03610), which the published tower began with: a batch holds images, texts and labels, and
every image and every text of the same label belong together. Pairs of an image and its caption have labels of their
own, and for them it is CLIP's loss; images of a class share one, and the class's sentences are not played off against
each other.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor

from open_florence.errors import OpenFlorenceError
from open_florence.model.embedding import LARGEST_SCALE, DualEncoder
from open_florence.model.florence import Florence
from open_florence.processor import Processor
from open_florence.schema import Annotation
from open_florence.tasks.templates import TEMPLATES, fill
from open_florence.training.batches import Example, draw_annotations
from open_florence.training.config import TrainConfig
from open_florence.training.objectives import Objective

MIXTURE = {"<CAPTION>": 1.0, "<DETAILED_CAPTION>": 1.0, "<CLASSIFICATION>": 1.0}
"""Which annotations of an image the text of a step is drawn from, by weight."""

CLASS_NAME = "<CLASSIFICATION>"
"""The task whose text is the name of a class; other texts are sentences already."""


@dataclass(frozen=True)
class ContrastiveBatch:
    """One step's input: I images, a text for each, and what says which belong together. L tokens."""

    pixel_values: Tensor  # (I, 3, H, W) float32
    input_ids: Tensor  # (I, L) long
    attention_mask: Tensor  # (I, L) long
    labels: Tensor  # (I,) long: equal where the texts say the same
    dropped: int = 0
    """Images left out because no text of theirs was drawn that fits: never silently cut."""

    def to(self, device: torch.device) -> ContrastiveBatch:
        """The same batch on another device."""
        tensors = (self.pixel_values, self.input_ids, self.attention_mask, self.labels)
        pixel_values, input_ids, attention_mask, labels = (tensor.to(device) for tensor in tensors)
        return ContrastiveBatch(pixel_values, input_ids, attention_mask, labels, self.dropped)


def draw_text(
    annotations: Sequence[Annotation], weights: Mapping[str, float], rng: random.Random
) -> tuple[str, str] | None:
    """A text about an image, and what it says: texts that say the same are of one label. None without any.

    An annotation is drawn by the task mixture. Of one with labelled regions it is the label of one of them, and of
    <CLASSIFICATION> the class, put into one of `TEMPLATES`; any other speaks for itself.
    """
    speaking = [a for a in annotations if a.text or any(region.label for region in a.regions)]
    for annotation in draw_annotations(speaking, weights, 1, rng):
        if annotation.text and annotation.task != CLASS_NAME:
            return annotation.text, annotation.text
        name = annotation.text or rng.choice([region.label for region in annotation.regions if region.label])
        return fill(rng.choice(TEMPLATES), name), name
    return None


def contrastive_batch(
    examples: Sequence[Example],
    processor: Processor,
    weights: Mapping[str, float],
    *,
    max_text: int,
    rng: random.Random,
) -> ContrastiveBatch:
    """Draws a text for each image and builds the step's tensors.

    `weights` is the task mixture (task token -> weight, absent = never). An image without a text, or whose text has
    more than `max_text` tokens, is left out and counted; raises OpenFlorenceError when that is all of them.
    """
    kept: list[tuple[Example, str, str]] = []
    for example in examples:
        drawn = draw_text(example.annotations, weights, rng)
        if drawn is not None and len(processor.tokenizer.encode(drawn[0])) <= max_text:
            kept.append((example, *drawn))
    if not kept:
        raise OpenFlorenceError(
            f"none of the {len(examples)} images has a text of {', '.join(weights)} with at most {max_text} tokens"
        )
    pixels = torch.from_numpy(
        processor.pixels([Image.fromarray(example.image) for example, *_ in kept])
    )  # (I, 3, S, S)
    input_ids, attention_mask = map(torch.from_numpy, processor.prompts([text for _, text, _ in kept]))  # (I, L) each
    labels = torch.tensor([label_of(said) for *_, said in kept])  # (I,)
    return ContrastiveBatch(pixels, input_ids, attention_mask, labels, len(examples) - len(kept))


def label_of(said: str) -> int:
    """A number for what a text says, the same in every process: 63 bits of a hash, blind to case and outer spaces."""
    digest = hashlib.blake2b(said.strip().casefold().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def unicl_loss(image_embeddings: Tensor, text_embeddings: Tensor, labels: Tensor, scale: Tensor | float) -> Tensor:
    """The bidirectional loss of UniCL (arXiv 2204.03610): the mean over rows of both directions, then over the two.

    Unit vectors image_embeddings and text_embeddings (I, E), labels (I,) long, `scale` the factor on the cosines. Row i
    shall spread its probability evenly over all columns of its label. With all labels different it is CLIP's loss.
    """
    logits = scale * image_embeddings @ text_embeddings.T  # (I, I)
    same = (labels[:, None] == labels).to(logits.dtype)  # (I, I)
    target = same / same.sum(1, keepdim=True)  # (I, I): symmetric in `same`, so it serves both directions
    to_text = -(target * logits.log_softmax(1)).sum(1).mean()
    to_image = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return (to_text + to_image) / 2


class ContrastiveObjective(Objective[ContrastiveBatch]):
    """A dual encoder and the loss of a batch: under several processes, of all their batches joined."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def losses(self, batch: ContrastiveBatch, step: int, config: TrainConfig) -> tuple[Tensor, dict[str, float]]:
        """UniCL's loss; logged with the share of images whose nearest text is one of their own, and the scale."""
        model = self.model
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(LARGEST_SCALE))  # not in the graph: it shall be able to come back
        images = gather(model.encode_image(batch.pixel_values))  # (I, E)
        texts = gather(model.encode_text(batch.input_ids, batch.attention_mask))  # (I, E)
        labels = gather(batch.labels)  # (I,)
        with torch.autocast(images.device.type, enabled=False):  # a hundred times a cosine in bfloat16 is no cosine
            loss = unicl_loss(images, texts, labels, model.scale)
        with torch.no_grad():
            nearest = (images @ texts.T).argmax(1)  # (I,)
            matched = (labels[nearest] == labels).float().mean()
        return loss, {"loss": loss.item(), "matched": matched.item(), "scale": model.scale.item()}

    def weight(self, batch: ContrastiveBatch) -> int:
        """One: every process computes the loss of all embeddings, and the mean of their gradients is its gradient."""
        return 1


def gather(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes in the order of their ranks, with gradients; one process's own if it is alone.

    Processes may have different numbers of rows.
    """
    if not dist.is_initialized():
        return rows
    counts = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    return _Gather.apply(rows, [int(count) for count in counts])  # type: ignore[no-any-return, no-untyped-call]


class _Gather(torch.autograd.Function):
    """Concatenation over processes; its gradient is the sum of what every process says about one's own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return torch.split(total, ctx.counts)[dist.get_rank()], None


def init_from(model: Florence, encoder: DualEncoder) -> None:
    """Puts a contrastively trained tower into a Florence, in place: where the published model's stage one began.

    Only the tower goes over; the projector and the language model stay as they are (after it, a projector that knows
    nothing is best set by `calibrate.calibrate_projector`). Raises OpenFlorenceError when the towers differ in shape.
    """
    theirs, ours = encoder.vision_tower.state_dict(), model.vision_tower.state_dict()
    if {name: t.shape for name, t in theirs.items()} != {name: t.shape for name, t in ours.items()}:
        sizes = f"{encoder.config.vision.dims} and {model.config.vision.dims}"
        raise OpenFlorenceError(f"the towers differ in shape ({sizes} channels), so one cannot start from the other")
    model.vision_tower.load_state_dict(theirs)
