"""The frozen audit split: images whose truth is known, that every round is measured on and none is trained on.

    LABELS/audit/split-001.jsonl   the samples with what people say of them, a line each; 002 when the split has grown
    LABELS/audit/manifest.json     hashes of that file and of every image, and the benchmarks that are kept apart too

It is chosen before a model has said anything. What is in it never changes; it may grow. A file that was edited is
noticed by its hash, the manifest by its seal.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from open_florence.data.jsonl import line_of, write_whole
from open_florence.data_engine.audit.fingerprints import BITS, Fingerprint, Picture, Pictured, batches, nearest
from open_florence.data_engine.audit.stratification import stratified
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id, list_images
from open_florence.schema import Sample

MANIFEST = "manifest.json"
DAMAGED = "is damaged: it is not what an audit split's manifest holds"
NEAR = 6
TRUSTED = ("human", "scenes")
"""Sources (what stands before "@") whose word is the truth: people, and scenes that know what was drawn."""


@dataclass(frozen=True, slots=True)
class Version:
    """The split as it was at one time."""

    file: str
    sha256: str
    images: int
    """How many images it held: the first so many of every later version."""
    date: str


@dataclass(frozen=True)
class AuditSplit:
    """Samples to measure on, and what has to be known to keep them and their likes out of training."""

    samples: tuple[Sample, ...]
    prints: tuple[Fingerprint, ...]
    """One of each sample, in the same order."""
    contaminants: Mapping[str, tuple[Fingerprint, ...]] = field(default_factory=dict)
    """Benchmark -> its images, which nothing is trained on either."""
    near: int = NEAR
    """Images whose perceptual hashes differ in so many bits or fewer are near-duplicates."""
    history: tuple[Version, ...] = ()
    """What was written to the disk; empty before `freeze`."""

    @classmethod
    def choose(
        cls,
        samples: Iterable[Sample],
        count: int,
        seed: int = 0,
        near: int = NEAR,
        trusted: Collection[str] = TRUSTED,
    ) -> AuditSplit:
        """Some `count` of the samples (all where there are fewer), every class among them, rare ones first.

        The same whatever the order of the samples. Samples that nobody labelled are passed over. Raises
        OpenFlorenceError where none is left, an image cannot be opened, or somebody else than `trusted` labelled one.
        """
        if count < 1:
            raise OpenFlorenceError(f"an audit split has at least 1 image, not {count}")
        picked = stratified(_labelled(samples, trusted), count, seed)
        return cls(tuple(picked), tuple(Fingerprint.of(sample) for sample in picked), near=near)

    @classmethod
    def load(cls, folder: Path) -> AuditSplit:
        """What `freeze` wrote. Raises OpenFlorenceError where it is not there, or not as it was written."""
        path = Path(folder) / MANIFEST
        manifest = _read_manifest(path)
        try:
            versions = tuple(Version(**record) for record in manifest["history"])
            data = _read_split(Path(folder) / versions[-1].file, versions[-1].sha256)
            contaminants = {
                name: tuple(map(Fingerprint.from_json, records)) for name, records in manifest["contaminants"].items()
            }
            return cls(
                tuple(Sample.from_json(json.loads(line)) for line in data.splitlines()),
                tuple(map(Fingerprint.from_json, manifest["images"])),
                contaminants,
                manifest["near"],
                versions,
            )
        except OpenFlorenceError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise OpenFlorenceError(f"{path} {DAMAGED}") from None

    def freeze(self, folder: Path) -> AuditSplit:
        """Writes it, the manifest last, and gives it back with its history; writing it again changes nothing.

        Raises OpenFlorenceError where the folder holds a split that this one did not grow from.
        """
        folder = Path(folder)
        earlier = AuditSplit.load(folder) if (folder / MANIFEST).exists() else None
        history = earlier.history if earlier else ()
        if earlier is not None:
            if self.samples[: len(earlier.samples)] != earlier.samples or _lost(earlier, self):
                raise OpenFlorenceError(f"{folder} holds another audit split, which is frozen: it can only grow")
            if replace(self, history=history) == earlier:
                return earlier
        if earlier is None or len(self.samples) > len(earlier.samples):
            name = f"split-{len(history) + 1:03d}.jsonl"
            data = b"".join(line_of(sample.to_json()) for sample in self.samples)
            write_whole(folder / name, [data])
            history = (*history, Version(name, hashlib.sha256(data).hexdigest(), len(self.samples), _now()))
        frozen = replace(self, history=history)
        write_whole(folder / MANIFEST, [json.dumps(frozen._manifest(), indent=1).encode(), b"\n"])
        return frozen

    def extend(self, samples: Iterable[Sample], trusted: Collection[str] = TRUSTED) -> AuditSplit:
        """The split with more audited images at its end; those it holds already stay as they are.

        A model may have been trained on them before: figures on the first `history[0].images` alone are beyond doubt.
        Raises OpenFlorenceError as `choose` does.
        """
        held = {sample.id for sample in self.samples}
        more = [sample for sample in _labelled(samples, trusted) if sample.id not in held]
        return replace(
            self, samples=(*self.samples, *more), prints=(*self.prints, *(Fingerprint.of(sample) for sample in more))
        )

    def register_contaminant(self, name: str, images: str | Path | Iterable[Pictured]) -> AuditSplit:
        """The split that keeps a benchmark out of training too: a folder of images, or samples.

        Registering more under the same name adds to it. Raises OpenFlorenceError for an image that cannot be opened.
        """
        if isinstance(images, str | Path):
            found = (Sample(image_id(path), os.path.abspath(path), ()) for path in list_images(images))
            prints = [Fingerprint.of(sample) for sample in found]
        else:
            prints = [Fingerprint.of(picture) for picture in images]
        held = {one.id: one for one in (*self.contaminants.get(name, ()), *prints)}
        return replace(self, contaminants={**self.contaminants, name: tuple(held.values())})

    def exclude(self, images: Iterable[Picture]) -> tuple[list[Picture], dict[str, str]]:
        """The images that may be trained on, in their order, and why each of the others (by id) may not."""
        allowed: list[Picture] = []
        reasons: dict[str, str] = {}
        for batch in batches(images):
            for picture, reason in zip(batch, self._reasons(batch), strict=True):
                if reason:
                    reasons[picture.id] = reason
                else:
                    allowed.append(picture)
        return allowed, reasons

    def refuse(self, images: Iterable[Pictured]) -> None:
        """The last gate before training. Raises OpenFlorenceError naming the first image that must not pass it."""
        for batch in batches(images):
            for picture, reason in zip(batch, self._reasons(batch), strict=True):
                if reason:
                    raise OpenFlorenceError(f"{picture.path or picture.id} must not be trained on: {reason}")

    def _reasons(self, batch: list[Picture]) -> list[str]:
        """Why each must not be trained on; "" where it may."""
        known = [("the audit split", one) for one in self.prints]
        known += [(f"the benchmark {name}", one) for name, prints in self.contaminants.items() for one in prints]
        if not known:
            return [""] * len(batch)
        places = {one.id: place for place, one in reversed(known)}
        reasons = [f"it is in {places[picture.id]}" if picture.id in places else "" for picture in batch]
        hashes: dict[int, int] = {}
        for index, picture in enumerate(batch):
            try:
                if not reasons[index]:
                    hashes[index] = Fingerprint.of(picture).phash
            except OpenFlorenceError as error:
                reasons[index] = f"it cannot be compared with {known[0][0]}: {error}"
        closest = nearest(list(hashes.values()), [one.phash for _, one in known])
        for index, match, distance in zip(hashes, *closest, strict=True):
            if distance <= self.near:
                place, one = known[match]
                reasons[index] = f"it nearly equals {one.path} of {place} ({distance} of {BITS} bits differ)"
        return reasons

    def _manifest(self) -> dict[str, Any]:
        record = {
            "history": [
                {"file": one.file, "sha256": one.sha256, "images": one.images, "date": one.date} for one in self.history
            ],
            "near": self.near,
            "images": [one.to_json() for one in self.prints],
            "contaminants": {name: [one.to_json() for one in prints] for name, prints in self.contaminants.items()},
        }
        return {**record, "seal": _seal(record)}


def _labelled(samples: Iterable[Sample], trusted: Collection[str]) -> list[Sample]:
    """Each image that has labels once, its path absolute. Raises OpenFlorenceError for labels of somebody else."""
    found: dict[str, Sample] = {}
    for sample in samples:
        for annotation in sample.annotations:
            if annotation.source.partition("@")[0] not in trusted:
                raise OpenFlorenceError(
                    f"{sample.path} carries labels of {annotation.source or 'nobody knows whom'}: in the audit split "
                    f"stand only those of {' and '.join(trusted)}"
                )
        if sample.annotations:
            placed = replace(sample, path=os.path.abspath(sample.path))
            found[sample.id] = min(placed, found.get(sample.id, placed), key=lambda one: line_of(one.to_json()))
    if not found:
        raise OpenFlorenceError("there is no image with human labels to audit with")
    return sorted(found.values(), key=lambda sample: sample.id)


def _lost(earlier: AuditSplit, later: AuditSplit) -> bool:
    """Whether a benchmark, or an image of one, is no longer kept apart."""
    return any(
        not {one.id for one in prints} <= {one.id for one in later.contaminants.get(name, ())}
        for name, prints in earlier.contaminants.items()
    )


def _read_manifest(path: Path) -> Any:
    """Raises OpenFlorenceError where it is not there, or not as it was written."""
    if not path.exists():
        raise OpenFlorenceError(f"there is no audit split in {path.parent}")
    try:
        manifest = json.loads(path.read_bytes())
        seal = manifest.pop("seal")
    except OSError as error:
        raise OpenFlorenceError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OpenFlorenceError(f"{path} {DAMAGED}") from None
    if _seal(manifest) != seal:
        raise OpenFlorenceError(f"{path} was changed: an audit split is never edited")
    return manifest


def _read_split(path: Path, sha256: str) -> bytes:
    """Raises OpenFlorenceError where it cannot be read or has another hash."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise OpenFlorenceError(f"the audit split {path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OpenFlorenceError(f"{path} was changed: an audit split is never edited")
    return data


def _seal(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
