"""Objects by a detector with classes of its own: RT-DETR, DETR, and others that transformers loads as such."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from open_florence.schema import Annotation, Sample
from open_florence.specialists.hub import HubModel, box_regions, load_hub_model, open_samples
from open_florence.specialists.versions import with_options


class Detector:
    """<OD>: boxes with the class names of the model and their scores."""

    name = "detector"
    tasks = ("<OD>",)
    needs: tuple[str, ...] = ()

    def __init__(
        self,
        model: str = "PekingU/rtdetr_r50vd",
        *,
        threshold: float = 0.2,
        batch_size: int = 8,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """`threshold` is the least score of a box. Raises OpenFlorenceError, see `load_hub_model`."""
        self._model = load_hub_model(
            model,
            "AutoModelForObjectDetection",
            "AutoImageProcessor",
            dtype=dtype,
            device=device,
            batch_size=batch_size,
        )
        self._threshold = threshold
        self.version = with_options(self._model.version, threshold=threshold)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """One <OD> for each sample, also where nothing was found. Boxes in pixels of the image."""
        images = open_samples(samples)
        prepare, names = self._model.processor, self._model.network.config.id2label
        outputs = self._model.run([dict(prepare(images=image, return_tensors="pt")) for image in images], self._forward)
        annotations = []
        for image, output in zip(images, outputs, strict=True):
            [found] = prepare.post_process_object_detection(
                SimpleNamespace(**output), threshold=self._threshold, target_sizes=[(image.height, image.width)]
            )
            labels = [names[int(label)] for label in found["labels"]]
            regions = box_regions(found["boxes"], found["scores"], labels, image.size)
            annotations.append([Annotation("<OD>", regions=regions)])
        return annotations

    def _forward(self, **batch: Tensor) -> dict[str, Tensor]:
        return detections(self._model, **batch)


def detections(model: HubModel, **batch: Tensor) -> dict[str, Tensor]:
    """The logits (B, Q, C) and the boxes (B, Q, 4), centre and size from 0 to 1, of a detector of the DETR family."""
    output = model.network(**batch)
    return {"logits": output.logits, "pred_boxes": output.pred_boxes}
