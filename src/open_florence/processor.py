"""Between samples and arrays: images and questions in, ids and their log-probabilities out as a scored `Annotation`.

Images follow the published preprocessor (CLIP's, ImageNet statistics, aspect ratio not kept); questions and answers
are worded by `tasks` and written by `tokenizer`. Arrays are NumPy's, so that every engine can be fed, PyTorch or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.images import open_image
from open_florence.schema import Annotation, Region, Size
from open_florence.tasks import Extent, Task, find_task
from open_florence.tasks.grammar import LOCATIONS
from open_florence.tokenizer import Tokenizer

WINDOW = "location_window"
"""Our key in generation_config.json, which transformers keeps and has no use for."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_TREATMENT: dict[str, bool | int | float] = {
    "do_resize": True,
    "resample": int(Image.Resampling.BICUBIC),
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}
"""What happens to every image, as preprocessor_config.json words it."""


@dataclass
class Processor:
    """Everything between a sample and the model's arrays; holds no weights."""

    tokenizer: Tokenizer
    image_size: int = 768
    """Height and width, in pixels, that every image is resized to."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    """Per channel (red, green, blue) of values between 0 and 1: what is subtracted, then what is divided by."""
    image_seq_length: int = 577
    """How many tokens the model makes of an image: kept for transformers' processor, which asks the folder for it."""
    location_window: int = 0
    """How far around a bin this model's coordinates are read (`GenerationConfig.location_window`); above 0 for models
    trained with soft location targets. Kept in generation_config.json, where transformers ignores it."""

    @classmethod
    def from_folder(cls, folder: str | Path) -> Processor:
        """Reads the tokenizer's files and preprocessor_config.json, or the processor_config.json newer versions write.

        The location window, where there is one, stands in generation_config.json. Raises OpenFlorenceError, naming the
        file, for one that is missing, unreadable or asks for another treatment.
        """
        tokenizer = Tokenizer.from_folder(folder)
        path, newer = (Path(folder) / name for name in ("preprocessor_config.json", "processor_config.json"))
        path = path if path.is_file() or not newer.is_file() else newer
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            config = config["image_processor"] if path is newer else config
            for name, value in _TREATMENT.items():
                if config.get(name) not in (None, value):
                    raise ValueError(f"{name} is {config[name]}, where {value} is the only one supported")
            mean, std = _channels(config["image_mean"]), _channels(config["image_std"])
            sequence = int(config.get("image_seq_length", 577))
            return cls(tokenizer, _side(config["size"]), mean, std, sequence, _location_window(folder))
        except FileNotFoundError:
            raise OpenFlorenceError(f"{folder} holds no preprocessor_config.json") from None
        except KeyError as error:
            raise OpenFlorenceError(f"{path} is not a Florence-2 preprocessor: it lacks {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise OpenFlorenceError(f"{path} is not a Florence-2 preprocessor: {error}") from error

    def save(self, folder: str | Path) -> None:
        """Writes the tokenizer's files and preprocessor_config.json in their published form.

        A location window goes into generation_config.json, beside what that file holds already.
        """
        self.tokenizer.save(folder)
        side = {"height": self.image_size, "width": self.image_size}
        config = {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "Florence2Processor",
            **_TREATMENT,
            "size": side,
            "crop_size": side,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
            "image_seq_length": self.image_seq_length,
        }
        path = Path(folder) / "preprocessor_config.json"
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        path = Path(folder) / "generation_config.json"
        generation = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if self.location_window != generation.pop(WINDOW, 0):
            window = {WINDOW: self.location_window} if self.location_window else {}
            path.write_text(json.dumps({**generation, **window}, indent=2) + "\n", encoding="utf-8")

    def pixels(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Images of any size -> (B, 3, S, S) float32, S = `image_size`: resized, scaled to 0..1, normalised.

        Bicubic on 8-bit values, then arithmetic in the order and precision of transformers' CLIP processor (Pillow
        backend), so that the values are the same to the last bit.
        """
        side = self.image_size
        levels = np.empty((len(images), side, side, 3), np.uint8)
        for index, image in enumerate(images):
            levels[index] = self.resized(image)
        return self.normalised(levels)

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image of any size -> (S, S, 3), S = `image_size`: the slow half of `pixels`, an eighth of its size."""
        side = self.image_size
        return np.asarray(open_image(image).resize((side, side), Image.Resampling.BICUBIC))

    def normalised(self, levels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Resized images (B, S, S, 3) -> (B, 3, S, S) float32, the other half of `pixels`."""
        table = self.level_table()
        pixels = np.empty((len(levels), 3, *levels.shape[1:3]), np.float32)
        for image, given in zip(pixels, levels, strict=True):
            for channel in range(3):
                np.take(table[channel], given[:, :, channel], out=image[channel])
        return pixels

    def level_table(self) -> NDArray[np.float32]:
        """(3, 256): what each of the values a channel can have becomes."""
        levels = (np.arange(256) * (1 / 255)).astype(np.float32)  # (256,)
        mean, std = (np.array(values, np.float32)[:, None] for values in (self.mean, self.std))  # (3, 1) each
        return (levels - mean) / std

    def prompts(self, questions: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Questions as `Task.question` words them -> input_ids and attention_mask, (B, L), padded on the right."""
        return self.padded([self.tokenizer.encode(question) for question in questions])

    def padded(self, rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokens of B questions -> input_ids and attention_mask, (B, L), as `prompts`."""
        shape = (len(rows), max(map(len, rows), default=0))
        input_ids, attention_mask = np.full(shape, self.tokenizer.pad, np.int64), np.zeros(shape, np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        return input_ids, attention_mask

    def target(self, annotation: Annotation, size: Size) -> list[int]:
        """The ids "<s>" body "</s>" the model learns to answer with; `size` is that of the annotation's coordinates."""
        return self.tokenizer.encode(find_task(annotation.task).grammar.serialize(annotation, size))

    def decode(
        self,
        task: Task,
        ids: Sequence[int],
        logprobs: Sequence[float],
        size: Size,
        query: str | Region | None = None,
        finished: bool = True,
        bins: Sequence[float] = (),
    ) -> Annotation:
        """Generated ids and the log-probability of each -> the annotation they say, scored.

        `size` is (width, height) in pixels of the original image, and so are the coordinates. A score is the
        geometric mean of the probabilities of the tokens it is about: a region's own location tokens for `score`, the
        words of its label for `label_score`; all that was said for the annotation's, or its words where it is words
        only. <s>, </s> and <pad>, however many and wherever, count for none. `finished` False says that generation was
        cut, so `complete` is False. `bins`, as `Generation` has them for these ids, are read instead of the bins that
        were said.
        """
        text, spans = self.tokenizer.decode_with_spans(ids)
        trace = task.grammar.trace(text, size, query)
        evidence = _Evidence(self.tokenizer, ids, logprobs, spans, bins)
        regions = tuple(
            replace(
                evidence.located(region, extent, size),
                score=evidence.score(extent.location, locations=True),
                label_score=evidence.score(extent.label, locations=False),
            )
            for region, extent in zip(trace.annotation.regions, trace.extents, strict=True)
        )
        annotation = trace.annotation
        only_words = bool(annotation.text) and not regions
        return replace(
            annotation,
            regions=regions,
            score=evidence.score((0, len(text)), locations=False if only_words else None),
            complete=annotation.complete and finished,
        )


class _Evidence:
    """The tokens of one answer: where in its text each stands, what kind it is, its bin and its log-probability."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        ids: Sequence[int],
        logprobs: Sequence[float],
        spans: Sequence[tuple[int, int]],
        bins: Sequence[float],
    ) -> None:
        if len(ids) != len(logprobs):
            raise ValueError(f"{len(ids)} ids came with {len(logprobs)} log-probabilities")
        if bins and len(ids) != len(bins):
            raise ValueError(f"{len(ids)} ids came with {len(bins)} mean bins")
        tokens = np.array(ids, np.int64)  # (T,)
        edges = np.array(spans, np.int64).reshape(-1, 2)  # (T, 2)
        self.starts, self.ends = edges[:, 0], edges[:, 1]
        self.logprobs = np.array(logprobs, np.float64)  # (T,)
        start = tokenizer.location_start
        self.is_location = (tokens >= start) & (tokens < start + tokenizer.location_count)
        self.is_said = ~np.isin(tokens, (tokenizer.bos, tokenizer.pad, tokenizer.eos))
        self.bins = {start: mean for (start, _), mean in zip(spans, bins, strict=False) if mean == mean}
        """The mean bin of the location token that starts at a character; empty where none were read."""

    def located(self, region: Region, extent: Extent, size: Size) -> Region:
        """The region with its points between bins: the mean around each token instead of the token's own centre.

        A box whose corners would change sides by it, as one narrower than the window can, stays as it was said.
        """
        bins = [self.bins[start] for start in extent.tokens if start in self.bins]
        if not bins or len(bins) != sum(len(point) for part in region.parts for point in part):
            return region
        rest = iter(bins)
        parts = tuple(
            tuple(LOCATIONS.dequantize([next(rest) for _ in point], size) for point in part) for part in region.parts
        )
        turned = region.kind == "box" and any(
            low > high and first <= second for low, high, first, second in zip(*parts[0], *region.parts[0], strict=True)
        )
        return region if turned else replace(region, parts=parts)

    def score(self, span: tuple[int, int] | None, locations: bool | None) -> float | None:
        """exp(mean log p) of the tokens that touch the characters of `span`; None when there are none.

        `locations` True counts location tokens only, False all others, None both.
        """
        if span is None:
            return None
        window = slice(np.searchsorted(self.ends, span[0], "right"), np.searchsorted(self.starts, span[1], "left"))
        chosen = self.is_said[window]
        if locations is not None:
            chosen = chosen & (self.is_location[window] == locations)
        values = self.logprobs[window][chosen]
        return float(np.exp(values.mean())) if values.size else None


def _location_window(folder: str | Path) -> int:
    """What generation_config.json says, 0 where it says nothing. Raises OpenFlorenceError, naming the file."""
    path = Path(folder) / "generation_config.json"
    if not path.is_file():
        return 0
    try:
        window = json.loads(path.read_text(encoding="utf-8")).get(WINDOW, 0)
    except (AttributeError, ValueError) as error:
        raise OpenFlorenceError(f"{path} is not a JSON object") from error
    if type(window) is not int or window < 0:
        raise OpenFlorenceError(f"{path} is wrong: {WINDOW} is a number of bins, 0 or more, not {window!r}")
    return window


def _side(size: Any) -> int:
    """The one number in any of the published ways to write a square size."""
    if isinstance(size, dict):
        sides = {int(value) for key, value in size.items() if key in ("height", "width", "shortest_edge")}
    else:
        sides = {int(value) for value in (size if isinstance(size, list) else [size])}
    if len(sides) != 1:
        raise ValueError(f"size {size} is not square")
    return sides.pop()


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
