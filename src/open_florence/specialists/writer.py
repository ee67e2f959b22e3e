"""Detailed descriptions written by a language model from what other specialists found, and checked against it.

The model gets the brief captions and the names and places of the regions (with `image` the picture too). Whatever its
answer names has to stand there: an object that does not is held against it once, and if it stays the description is
marked as not complete, without a score.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from open_florence.geometry import region_box
from open_florence.images import open_image
from open_florence.noun_phrases import noun_phrases, singular
from open_florence.schema import Annotation, Region, Sample
from open_florence.selection import region_score
from open_florence.specialists.endpoint import Endpoint, Message
from open_florence.specialists.hub import clean_name
from open_florence.specialists.versions import with_options

log = logging.getLogger(__name__)

SYSTEM = (
    "You write descriptions of images from notes that detectors and captioners made of them. Name only what the notes "
    "name. Do not guess at what is not there, at feelings or at purposes, and do not mention the notes, percentages or "
    "scores. Say how many there are of a thing, where things are and how they lie to each other, as far as the notes "
    "say it. Answer with the description alone, in plain sentences."
)
PROMPT = """Captions of the image:
{captions}

Objects in it, with left, top, right and bottom in percent of its width and height:
{objects}

Describe the image in {length}."""
COMPLAINT = "The notes do not name: {names}. Write the description again without naming anything that is not in them."
LENGTHS = {
    "<DETAILED_CAPTION>": "two or three sentences",
    "<MORE_DETAILED_CAPTION>": "a paragraph of six to ten sentences",
}

MOST_OBJECTS = 60
"""The surest are shown."""
LONGEST_SIDE = 768
"""Of the picture that is sent, in pixels."""
NO_OBJECTS = frozenset(
    re.findall(
        r"\w+",
        "area arrangement bottom center centre color colour corner description detail direction distance edge end "
        "front half height left length line middle number one other overall pair part piece position right row scene "
        "set setting shape side size space style surface top total two variety view way width",
    )
)
"""Nouns that a description may use although they name nothing in the image."""


class Writer:
    """<DETAILED_CAPTION> and <MORE_DETAILED_CAPTION> from <CAPTION> and the labels of regions."""

    name = "writer"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = "",
        tasks: Sequence[str] = tuple(LENGTHS),
        regions: str = "<OD>",
        synonyms: Mapping[str, Sequence[str]] | None = None,
        image: bool = False,
        request_timeout: float = 60.0,
        retries: int = 4,
        parallel: int = 4,
    ) -> None:
        """`url`, `model`, `key_variable`, `request_timeout` and `retries` are those of `Endpoint`.

        `regions` is the task whose regions are shown, <OD> or <DENSE_REGION_CAPTION>. `synonyms` are other words for a
        label, which the answer may use. `image` sends the picture too. `parallel` questions are asked at a time.
        Raises OpenFlorenceError as `Endpoint` does.
        """
        self._endpoint = Endpoint(
            url, model, key_variable=key_variable, request_timeout=request_timeout, retries=retries
        )
        self.tasks = tuple(tasks)
        self.needs = ("<CAPTION>", regions)
        self._synonyms = {label.lower(): tuple(words) for label, words in (synonyms or {}).items()}
        self._image, self._parallel = image, parallel
        settings = {"url": self._endpoint.url, "tasks": self.tasks, "regions": regions, "image": image}
        asked = {"prompt": [SYSTEM, PROMPT, LENGTHS], "synonyms": self._synonyms}
        self.version = with_options(clean_name(model), **settings, **asked)

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """A description for each task and sample, none for a sample of which nothing is known.

        The score is 1 where everything that the description names stands in the notes, else None, and `complete` is
        then False and the reason in the log. Raises OpenFlorenceError when the endpoint gives no answer.
        """
        notes = [_notes(sample, self.needs[1]) for sample in samples]
        asked = [(index, task) for index, known in enumerate(notes) if any(known) for task in self.tasks]
        answers: list[list[Annotation]] = [[] for _ in samples]
        with ThreadPoolExecutor(self._parallel) as threads:
            written = threads.map(lambda ask: self._write(samples[ask[0]], notes[ask[0]], ask[1]), asked)
            for (index, _), annotation in zip(asked, written, strict=True):
                answers[index].append(annotation)
        return answers

    def _write(self, sample: Sample, notes: tuple[Sequence[str], Sequence[Region]], task: str) -> Annotation:
        captions, regions = notes
        known = self._known([*captions, *(region.label for region in regions)])
        messages: list[Message] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": self._question(sample, captions, regions, task)},
        ]
        reply = self._endpoint.ask(messages)
        if absent := unsupported(reply.text, known):
            complaint = COMPLAINT.format(names=", ".join(absent))
            messages += [{"role": "assistant", "content": reply.text}, {"role": "user", "content": complaint}]
            reply = self._endpoint.ask(messages)
            if absent := unsupported(reply.text, known):
                log.warning("%s: %s names what nobody found: %s", sample.path, task, ", ".join(absent))
        return Annotation(task, reply.text, score=None if absent else 1.0, complete=reply.whole and not absent)

    def _question(
        self, sample: Sample, captions: Sequence[str], regions: Sequence[Region], task: str
    ) -> str | list[dict[str, object]]:
        text = PROMPT.format(
            captions="\n".join(f"- {caption}" for caption in captions) or "- none",
            objects="\n".join(_line(region, sample.size) for region in regions) or "- none",
            length=LENGTHS.get(task, LENGTHS["<DETAILED_CAPTION>"]),
        )
        if not self._image:
            return text
        picture: dict[str, object] = {"type": "image_url", "image_url": {"url": _data_url(sample.path)}}
        return [{"type": "text", "text": text}, picture]

    def _known(self, notes: Sequence[str]) -> frozenset[str]:
        """The words, in the singular, of the notes and of the synonyms of labels in them."""
        synonyms = [word for note in notes for word in self._synonyms.get(note.lower(), ())]
        return frozenset(singular(word) for text in [*notes, *synonyms] for word in _words(text))


def unsupported(text: str, known: Collection[str]) -> list[str]:
    """The objects that a text names, in the singular, of which none of the `known` words (lower case) is the name."""
    heads = (singular(word) for phrase in noun_phrases(text) for word in _words(phrase.head)[-1:])
    return list(dict.fromkeys(head for head in heads if head not in known and head not in NO_OBJECTS))


def _notes(sample: Sample, task: str) -> tuple[list[str], list[Region]]:
    """The brief captions of a sample, and its regions of a task that have a label, the surest first."""
    captions = [said.text for said in sample.annotations if said.task == "<CAPTION>" and said.text.strip()]
    regions = [region for said in sample.annotations if said.task == task for region in said.regions if region.label]
    regions.sort(key=lambda region: -region_score(region))
    return list(dict.fromkeys(captions)), regions[:MOST_OBJECTS]


def _line(region: Region, size: Sequence[float]) -> str:
    box = region_box(region.parts) / [*size, *size]
    return f"- {region.label}: " + ", ".join(f"{100 * value:.0f}" for value in box)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _data_url(path: str) -> str:
    """The picture as JPEG, made smaller where it is large."""
    picture = open_image(path).copy()
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
