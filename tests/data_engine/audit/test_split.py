"""The frozen split: who is in it, that it never changes, and that nothing like it is trained on."""

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from open_florence.data_engine.audit.fingerprints import nearest
from open_florence.data_engine.audit.split import AuditSplit
from open_florence.data_engine.audit.stratification import LEAST, strata, stratified
from open_florence.errors import OpenFlorenceError
from open_florence.images import image_id
from open_florence.schema import Annotation, Region, Sample


def labelled(name, labels, source="human", path="/none.png"):
    regions = tuple(Region.box(0, 0, 9, 9, label=label) for label in labels)
    return Sample(name, path, (10.0, 10.0), (Annotation("<OD>", regions=regions, source=source),))


def picture(seed, size=(160, 120)):
    """A smooth picture unlike those of other seeds."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve images on the disk with human labels, the class "bolt" on one of them alone."""
    folder = tmp_path_factory.mktemp("photos")
    samples = []
    for k in range(12):
        path = folder / f"{k}.png"
        picture(k).save(path)
        samples.append(labelled(image_id(path), ["cat", "bolt"] if k == 7 else ["cat"], path=str(path)))
    return samples


@pytest.fixture(scope="module")
def split(photos):
    return AuditSplit.choose(photos, 4)


LABELS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), min_size=1, max_size=40)


@given(LABELS, st.integers(1, 45), st.integers(0, 3), st.randoms())
@settings(max_examples=60)
def test_the_order_of_the_samples_does_not_matter(images, count, seed, random):
    samples = [labelled(f"{k:03}", labels) for k, labels in enumerate(images)]
    chosen = stratified(samples, count, seed)
    shuffled = random.sample(samples, len(samples))
    assert stratified(shuffled, count, seed) == chosen
    assert len({sample.id for sample in chosen}) == min(count, len(samples))


@given(LABELS)
@settings(max_examples=60)
def test_every_class_is_represented_where_there_is_room(images):
    samples = [labelled(f"{k:03}", labels) for k, labels in enumerate(images)]
    everything = Counter(stratum for sample in samples for stratum in strata(sample))
    chosen = stratified(samples, len(everything))
    assert {stratum for sample in chosen for stratum in strata(sample)} == everything.keys()


def test_rare_classes_get_more_than_their_share_and_leave_half_outside():
    samples = [labelled(f"{k:04}", ["bolt"] if k < 8 else ["cat"]) for k in range(1000)]
    chosen = Counter(label for sample in stratified(samples, 50) for _, label in strata(sample))
    assert chosen == {"bolt": 4, "cat": 46}
    assert LEAST == 5


def test_another_seed_is_another_split():
    samples = [labelled(f"{k:04}", ["cat"]) for k in range(100)]
    assert stratified(samples, 10, seed=1) != stratified(samples, 10, seed=2)


def test_crowded_images_are_not_preferred():
    samples = [labelled(f"{k:04}", ["cat"] * (1 + 19 * (k % 2))) for k in range(1000)]
    crowded = sum(len(sample.annotations[0].regions) > 1 for sample in stratified(samples, 200))
    assert 70 <= crowded <= 130


@given(st.lists(st.integers(0, 2**64 - 1), max_size=5), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5))
def test_the_nearest_hash(hashes, known):
    indices, distances = nearest(hashes, known)
    for value, index, distance in zip(hashes, indices, distances, strict=True):
        assert distance == min((value ^ other).bit_count() for other in known) == (value ^ known[index]).bit_count()


def test_the_rare_class_is_in_and_paths_are_absolute(photos, split, monkeypatch):
    assert any("bolt" in {label for _, label in strata(sample)} for sample in split.samples)
    assert len(split.samples) == len(split.prints) == 4
    assert AuditSplit.choose(photos[::-1], 4) == split
    monkeypatch.chdir("/")
    assert AuditSplit.choose([replace(one, path=one.path[1:]) for one in photos], 4) == split


def test_only_labels_of_people_and_known_truth_may_be_in_it(photos):
    model = replace(photos[0], annotations=(*photos[0].annotations, Annotation("<CAPTION>", "a cat", source="blip@2")))
    with pytest.raises(OpenFlorenceError, match=r"carries labels of blip@2: in the audit split stand only"):
        AuditSplit.choose([model], 1)
    assert AuditSplit.choose([replace(photos[0], annotations=(Annotation("<OCR>", "x", source="human@review"),))], 1)
    with pytest.raises(OpenFlorenceError, match="no image with human labels"):
        AuditSplit.choose([replace(photos[0], annotations=())], 1)
    with pytest.raises(OpenFlorenceError, match="at least 1 image, not 0"):
        AuditSplit.choose(photos, 0)


def test_what_was_frozen_is_read_again(split, tmp_path):
    frozen = split.freeze(tmp_path)
    assert AuditSplit.load(tmp_path) == frozen
    assert replace(frozen, history=()) == split
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert split.freeze(tmp_path) == frozen
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def edit_split(folder):
    path = folder / "split-001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"cat", b"dog", 1))


def shorten_split(folder):
    path = folder / "split-001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def edit_manifest(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["images"].pop()
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("edit", [edit_split, shorten_split, edit_manifest])
def test_an_edited_split_is_refused(split, tmp_path, edit):
    split.freeze(tmp_path)
    edit(tmp_path)
    with pytest.raises(OpenFlorenceError, match=r"was changed: an audit split is never edited"):
        AuditSplit.load(tmp_path)


def test_a_damaged_or_missing_split_is_one_sentence(split, tmp_path):
    with pytest.raises(OpenFlorenceError, match=r"there is no audit split in"):
        AuditSplit.load(tmp_path)
    split.freeze(tmp_path)
    (tmp_path / "split-001.jsonl").unlink()
    with pytest.raises(OpenFlorenceError, match="cannot be read"):
        AuditSplit.load(tmp_path)
    for damaged in ("{", "[]", "{}"):
        (tmp_path / "manifest.json").write_text(damaged)
        with pytest.raises(OpenFlorenceError, match=r"manifest\.json is damaged"):
            AuditSplit.load(tmp_path)


def test_another_split_does_not_take_the_place_of_a_frozen_one(photos, split, tmp_path):
    split.freeze(tmp_path)
    with pytest.raises(OpenFlorenceError, match="another audit split, which is frozen"):
        AuditSplit.choose(photos, 5).freeze(tmp_path)
    kept = split.register_contaminant("bench", photos[:2]).freeze(tmp_path)
    assert AuditSplit.load(tmp_path).contaminants == kept.contaminants
    with pytest.raises(OpenFlorenceError, match="another audit split"):
        split.freeze(tmp_path)  # without the benchmark


def test_a_split_grows_and_old_hashes_stay(photos, split, tmp_path):
    first = split.freeze(tmp_path)
    grown = first.extend(photos).freeze(tmp_path)
    assert len(grown.samples) == 12
    assert grown.samples[:4] == split.samples
    assert [version.images for version in grown.history] == [4, 12]
    assert grown.history[0] == first.history[0]
    assert AuditSplit.load(tmp_path) == grown
    assert (tmp_path / "split-001.jsonl").exists()
    relabelled = labelled(split.samples[0].id, ["dog"], path=split.samples[0].path)
    assert first.extend([relabelled]).samples == first.samples


def test_a_crash_before_the_manifest_leaves_the_old_split(photos, split, tmp_path, monkeypatch):
    first = split.freeze(tmp_path)
    written = (tmp_path / "manifest.json").read_bytes()
    first.extend(photos).freeze(tmp_path)
    (tmp_path / "manifest.json").write_bytes(written)  # what there is when the process dies before its last write
    assert AuditSplit.load(tmp_path) == first
    assert len(first.extend(photos).freeze(tmp_path).samples) == 12


def copies(path, folder):
    """The same picture in other files: smaller, larger, compressed, and with other pixels in one corner."""
    image = Image.open(path)
    made = {
        "half.png": image.resize((80, 60)),
        "double.png": image.resize((320, 240), Image.Resampling.LANCZOS),
        "stretched.png": image.resize((150, 120)),
    }
    for name, copy in made.items():
        copy.save(folder / name)
    image.save(folder / "compressed.jpg", quality=30)
    image.save(folder / "renamed.bmp")
    return [folder / name for name in (*made, "compressed.jpg", "renamed.bmp")]


def test_copies_of_audited_images_are_left_out_and_refused(photos, split, tmp_path):
    audited = {sample.id for sample in split.samples}
    others = [sample for sample in photos if sample.id not in audited]
    allowed, excluded = split.exclude(photos)
    assert allowed == others
    assert excluded == dict.fromkeys(
        [sample.id for sample in photos if sample.id in audited], "it is in the audit split"
    )
    split.refuse(others)
    for path in copies(split.samples[0].path, tmp_path):
        copy = Sample(image_id(path), str(path), ())
        assert split.exclude([copy])[0] == []
        with pytest.raises(OpenFlorenceError, match=rf"{path.name} must not be trained on: it (nearly equals|is in)"):
            split.refuse([*others, copy])


def test_near_duplicates_are_those_within_the_distance(photos, split, tmp_path):
    Image.open(split.samples[0].path).save(tmp_path / "copy.jpg", quality=2)
    copy = Sample("copy", str(tmp_path / "copy.jpg"), ())
    (print_,) = AuditSplit.choose([replace(copy, annotations=split.samples[0].annotations)], 1).prints
    distance = (print_.phash ^ split.prints[0].phash).bit_count()
    assert split.near == 6
    assert replace(split, near=distance).exclude([copy])[1]
    if distance:
        assert replace(split, near=distance - 1).exclude([copy])[0] == [copy]


@dataclass(frozen=True)
class StoredImage:
    """As a row of the store: its hash is known, its file need not be here."""

    id: str
    path: str
    phash: int


def test_rows_of_the_store_need_not_be_opened(split):
    twin = StoredImage("twin", "https://example.org/twin.jpg", split.prints[0].phash ^ 0b101)
    far = StoredImage("far", "https://example.org/far.jpg", split.prints[0].phash ^ (2**64 - 1))
    allowed, excluded = split.exclude([twin, far])
    assert allowed == [far]
    assert excluded == {"twin": f"it nearly equals {split.prints[0].path} of the audit split (2 of 64 bits differ)"}


def test_what_cannot_be_compared_is_left_out(split, tmp_path):
    broken = Sample("broken", str(tmp_path / "broken.png"), ())
    assert split.exclude([broken])[1]["broken"].startswith("it cannot be compared with the audit split: ")


def test_benchmarks_are_kept_out_of_training_too(photos, split, tmp_path):
    (tmp_path / "bench").mkdir()
    picture(100).save(tmp_path / "bench" / "a.png")
    kept = split.register_contaminant("bench", tmp_path / "bench")
    picture(100).resize((100, 75)).save(tmp_path / "copy.png")
    copy = Sample(image_id(tmp_path / "copy.png"), str(tmp_path / "copy.png"), ())
    assert split.exclude([copy])[0] == [copy]
    with pytest.raises(OpenFlorenceError, match=r"it nearly equals .*a\.png of the benchmark bench"):
        kept.refuse([copy])
    more = kept.register_contaminant("bench", photos[:1])
    assert len(more.contaminants["bench"]) == 2
    assert more.exclude(photos[:1])[1][photos[0].id].startswith("it is in")


def test_nothing_is_refused_where_nothing_is_known():
    images = [Sample("1", "/none.png", ())]
    assert AuditSplit((), ()).exclude(images) == (images, {})
