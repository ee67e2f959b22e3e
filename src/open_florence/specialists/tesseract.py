"""Text by Tesseract (Smith, ICDAR 2007): the program of that name, asked for its table of words."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar, NamedTuple

from PIL import Image

from open_florence.errors import OpenFlorenceError
from open_florence.geometry import box_to_polygon
from open_florence.images import open_image
from open_florence.schema import Annotation, Region, Sample
from open_florence.specialists.versions import version_of

PROGRAM = "tesseract"
INSTALL = "install it (Debian: apt-get install tesseract-ocr; macOS: brew install tesseract)"
WORD = "5"
"""The level of a word in Tesseract's table; above it stand page, block, paragraph and line."""


class Word(NamedTuple):
    """A row of the table."""

    line: tuple[str, str, str, str]
    """Page, block, paragraph and line: the words of a line share it."""
    box: tuple[float, float, float, float]
    """x1, y1, x2, y2 in pixels of the image that Tesseract saw."""
    confidence: float
    """0 to 1."""
    text: str


@dataclass
class Tesseract:
    """<OCR_WITH_REGION>: a quad a word with its confidence; <OCR>: their lines, in Tesseract's reading order.

    Raises OpenFlorenceError when the program or a language is missing, or an option is out of range.
    """

    lang: str = "eng"
    """Languages as Tesseract names them, "eng+deu"."""
    psm: int = 3
    """Page segmentation, 0 to 13: 3 finds the layout itself, 6 expects one block, as on a receipt, 11 scattered words,
    as in a street."""
    min_confidence: float = 0.0
    """Words below it are left out of both answers, 0 to 1."""
    least_side: int = 640
    """An image whose shorter side has fewer pixels is enlarged 2, 3 or 4 times, to at least so many where 4 suffice."""
    workers: int = field(default=1, compare=False)
    """Images read at the same time, a process each."""
    version: str = field(init=False, compare=False)

    name: ClassVar[str] = "tesseract"
    tasks: ClassVar[tuple[str, ...]] = ("<OCR_WITH_REGION>", "<OCR>")
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.psm <= 13 or not 0 <= self.min_confidence <= 1 or self.workers < 1 or self.least_side < 0:
            raise OpenFlorenceError(
                "tesseract: psm lies between 0 and 13, min_confidence between 0 and 1, workers is at least 1, "
                f"least_side at least 0; given {self.psm}, {self.min_confidence}, {self.workers}, {self.least_side}"
            )
        self.version = version_of(program_version(), self)
        there = set(_run("--list-langs").decode().split("\n")[1:])
        if missing := [lang for lang in self.lang.split("+") if lang not in there]:
            raise OpenFlorenceError(
                f"Tesseract has not learnt {missing[0]!r}: install its data (Debian: tesseract-ocr-{missing[0]})"
            )

    def annotate(self, samples: Sequence[Sample]) -> list[list[Annotation]]:
        """Both tasks for each sample."""
        with ThreadPoolExecutor(self.workers) as pool:
            return list(pool.map(self._read, samples))

    def _read(self, sample: Sample) -> list[Annotation]:
        image = open_image(sample.path)
        factor = next((k for k in (1, 2, 3) if min(image.size) * k >= self.least_side), 4)
        words = [word for word in self._words(image, factor) if word.confidence >= self.min_confidence]
        quads = tuple(_quad(word, factor, image.size) for word in words)
        lines = [" ".join(word.text for word in line) for _, line in groupby(words, lambda word: word.line)]
        return [Annotation("<OCR_WITH_REGION>", regions=quads), Annotation("<OCR>", "\n".join(lines))]

    def _words(self, image: Image.Image, factor: int) -> list[Word]:
        """In the order in which they are read."""
        if factor > 1:
            image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        image.save(file, "PPM")
        table = _run("stdin", "stdout", "-l", self.lang, "--psm", str(self.psm), "tsv", given=file.getvalue())
        return parse_words(table.decode("utf-8", "replace"))


def program_version() -> str:
    """The version of the Tesseract that is installed, as "5.3.0". Raises OpenFlorenceError where there is none."""
    found = re.search(r"tesseract v?(\S+)", _run("--version").decode("utf-8", "replace"))
    return found[1] if found else "unknown"


def parse_words(table: str) -> list[Word]:
    """The words of Tesseract's tab-separated table, without empty ones."""
    words = []
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        text = (row["text"] or "").strip()
        if row["level"] != WORD or not text:
            continue
        left, top, width, height = (float(row[name]) for name in ("left", "top", "width", "height"))
        line = (row["page_num"], row["block_num"], row["par_num"], row["line_num"])
        confidence = min(max(float(row["conf"]) / 100, 0.0), 1.0)
        words.append(Word(line, (left, top, left + width, top + height), confidence, text))
    return words


def _quad(word: Word, factor: int, size: tuple[int, int]) -> Region:
    box = [min(value / factor, float(size[k % 2])) for k, value in enumerate(word.box)]
    corners = tuple((x, y) for x, y in box_to_polygon(box).tolist())
    return Region("quad", (corners,), word.text, score=word.confidence)


def _run(*arguments: str, given: bytes = b"") -> bytes:
    """What the program prints. It is held to one thread: several are slower on images of this size, and much slower
    beside other work."""
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}
    try:
        done = subprocess.run([PROGRAM, *arguments], input=given, capture_output=True, env=environment)
    except FileNotFoundError:
        raise OpenFlorenceError(f"there is no program {PROGRAM} here: {INSTALL}") from None
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split()) or f"exit status {done.returncode}"
        raise OpenFlorenceError(f"Tesseract failed: {said[:200]}")
    return done.stdout
