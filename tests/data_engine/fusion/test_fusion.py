import random
from collections.abc import Sequence

from open_florence.data_engine.decision import Candidate
from open_florence.data_engine.fusion import Fusion, learn
from open_florence.schema import Annotation, Region, Sample

SAMPLE = Sample("a", "a.png", (100.0, 100.0))


def look(source: str, *regions: Region) -> Annotation:
    return Annotation("<OD>", regions=regions, source=source)


def cat(x: float, score: float = 0.8, label: str = "cat") -> Region:
    return Region.box(x, 10, x + 20, 30, label=label, score=score)


def crowd(images: int = 200, seed: int = 0) -> list[list[Annotation]]:
    """Three detectors of cats and dogs; each misses a fifth and invents something, with a low score, now and then."""
    rng = random.Random(seed)
    made = []
    for _ in range(images):
        things = [(cat(10), "cat"), (cat(60), "dog")]
        said = []
        for name in ("one@1", "two@1", "three@1"):
            regions = [
                cat(t.parts[0][0][0] + rng.uniform(-1, 1), rng.betavariate(6, 2), label)
                for t, label in things
                if rng.random() < 0.8
            ]
            if rng.random() < 0.3:
                regions.append(Region.box(40, 60, 55, 75, label="dog", score=rng.betavariate(2, 6)))
            said.append(look(name, *regions))
        made.append(said)
    return made


def candidates(annotations: Sequence[Annotation]) -> list[Candidate]:
    return [Candidate(f"row-{k}", a) for k, a in enumerate(annotations)]


def test_agreement_is_kept_and_a_lonely_weak_box_dropped_with_a_reason() -> None:
    said = crowd()
    fusion = Fusion(learn(said))
    image = [
        look("one@1", cat(10, 0.9), cat(60, 0.9, "dog")),
        look("two@1", cat(11, 0.8), cat(61, 0.7, "dog")),
        look("three@1", cat(9.5, 0.8), Region.box(40, 60, 55, 75, label="dog", score=0.1)),
    ]
    kept, dropped = fusion(SAMPLE, candidates(image))
    assert (kept.status, dropped.status) == ("kept", "dropped")
    assert [r.label for r in kept.annotation.regions] == ["cat", "dog"], "left to right"
    assert kept.annotation.source == "fusion@1"
    assert kept.parents == ("row-0", "row-1", "row-2")
    assert kept.reason == "1 by one@1, three@1, two@1; 1 by one@1, two@1"
    assert dropped.reason == "probably nothing: seen by three@1 alone, probability under 0.5"
    assert dropped.annotation.regions[0].parts == image[2].regions[1].parts
    assert 0 < (dropped.annotation.regions[0].score or 0) < 0.5 < (kept.annotation.regions[0].score or 0)


def test_every_region_is_fused_or_dropped() -> None:
    said = crowd(100)
    fusion = Fusion(learn(said))
    for image in said:
        kept, *dropped = fusion(SAMPLE, candidates(image))
        fused = sum(int(part.split(" ")[0]) * (part.count(",") + 1) for part in kept.reason.split("; ") if part)
        assert fused + sum(len(d.annotation.regions) for d in dropped) == sum(len(a.regions) for a in image)


def test_where_a_person_has_labelled_that_is_the_answer() -> None:
    fusion = Fusion(learn(crowd()))
    human = look("human@boxes", cat(40, 1.0))
    decisions = fusion(SAMPLE, candidates([look("one@1", cat(10)), human, look("two@1", cat(10))]))
    assert [d.annotation for d in decisions if d.status == "kept"] == [human]
    assert {d.reason for d in decisions} == {"a person has labelled this image"}
    corrected = look("human@review", cat(41, 1.0))
    decisions = fusion(SAMPLE, candidates([human, corrected]))
    assert [d.annotation for d in decisions if d.status == "kept"] == [corrected], "the last word"
    assert decisions[1].reason == "a person has labelled this image again"


def test_what_people_say_about_some_images_teaches_about_the_others() -> None:
    """Two detectors invent the same thing in every third image: only a person can know."""
    rng = random.Random(1)
    said = crowd()
    ghost = Region.box(70, 70, 90, 90, label="dog", score=0.7)
    for image in said:
        if rng.random() < 0.3:
            image[0] = look("one@1", *image[0].regions, ghost)
            image[1] = look("two@1", *image[1].regions, ghost)
    haunted = said[150:]
    truth = [(cat(10), cat(60, label="dog")) if k < 100 else None for k in range(len(said))]

    def ghosts(fusion: Fusion) -> int:
        kept = [fusion(SAMPLE, candidates(image))[0].annotation.regions for image in haunted]
        return sum(r.parts[0][0][0] > 65 and r.parts[0][0][1] > 65 for regions in kept for r in regions)

    assert ghosts(Fusion(learn(said))) > 5
    assert ghosts(Fusion(learn(said, truth=truth))) == 0


def test_other_tasks_are_left_alone_and_nothing_found_is_an_answer() -> None:
    fusion = Fusion(learn(crowd()))
    assert fusion(SAMPLE, candidates([Annotation("<CAPTION>", "a cat", source="one@1")])) == []
    (kept,) = fusion(SAMPLE, candidates([look("one@1"), look("two@1")]))
    assert (kept.status, kept.annotation.regions) == ("kept", ())
