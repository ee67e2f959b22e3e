"""What is said about scenes: every sentence is checked against the objects, by other means than those that wrote it."""

import re
from collections import Counter

import pytest

from open_florence.locations import LocationQuantizer
from open_florence.scenes import Scene
from open_florence.scenes.captions import MOST_WORDS
from open_florence.scenes.contents import SceneObject
from open_florence.scenes.phrases import article, plural
from open_florence.scenes.vocabulary import COLOURS, NUMBERS, SHAPES, TEXTURES
from open_florence.schema import Annotation, Region, Sample
from open_florence.tasks import TASKS

SINGULAR = {plural(name): name for name in SHAPES}


def _of(scene: Scene, task: str) -> list[Annotation]:
    return [a for a in scene.annotations if a.task == task]


def _fits(words: str, thing: SceneObject) -> bool:
    """Whether a noun phrase, in singular or plural, with any article or number before it, fits an object."""
    *before, noun = words.split()
    kinds = {"colour": COLOURS, "texture": TEXTURES, "size": ("small", "large")}
    said = {kind: w for w in before for kind, values in kinds.items() if w in values}
    return SINGULAR.get(noun, noun) == thing.name and all(getattr(thing, kind) == w for kind, w in said.items())


def test_every_task_is_annotated(scenes: list[Scene]) -> None:
    seen = Counter(a.task for s in scenes for a in s.annotations)
    assert set(seen) == set(TASKS) - {"<CLASSIFICATION>"}
    assert all(a.source == "scenes" for s in scenes[:5] for a in s.annotations)
    with_words = [s for s in scenes if s.words]
    assert seen["<OCR>"] < len(with_words) + 0.3 * (len(scenes) - len(with_words))


def test_every_annotation_survives_its_grammar(scenes: list[Scene]) -> None:
    bins = LocationQuantizer()
    for scene in scenes[:60] + scenes[-20:]:
        size = scene.sample.size
        for annotation in scene.annotations:
            task = TASKS[annotation.task]
            task.question(annotation.query if task.query != "none" else None, size)
            read = task.grammar.parse(task.grammar.serialize(annotation, size), size)
            assert read.complete
            assert read.dropped == 0
            if annotation.task != "<CAPTION_TO_PHRASE_GROUNDING>":  # whose caption is the question
                assert read.text == annotation.text
            for a, b in zip(annotation.regions, read.regions, strict=True):
                assert (a.kind, a.label) == (b.kind, b.label)
                for p, q in zip(a.parts, b.parts, strict=True):
                    assert [bins.quantize(v, size) for v in p] == [bins.quantize(v, size) for v in q]


def test_samples_survive_json(scenes: list[Scene]) -> None:
    for scene in scenes[:30]:
        assert Sample.from_json(scene.sample.to_json()) == scene.sample


def test_lists_name_every_object_left_to_right(scenes: list[Scene]) -> None:
    for scene in scenes:
        boxes = [((o.box[:2], o.box[2:]),) for o in scene.objects]
        for task, label in (("<OD>", "name"), ("<DENSE_REGION_CAPTION>", "description"), ("<REGION_PROPOSAL>", "")):
            (annotation,) = _of(scene, task)
            assert [r.parts for r in annotation.regions] == boxes
            assert [r.label for r in annotation.regions] == [getattr(o, label, "") for o in scene.objects]


def test_captions_count_and_describe_the_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        (brief,), (detailed,), (more,) = (
            _of(scene, t) for t in ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")
        )
        assert len(brief.text.split()) <= 11
        background = f"a {scene.background.kind} {scene.background.colour} background"
        assert detailed.text.endswith(f" on {background}.")
        assert more.text.startswith(f"On {background} there ")
        assert len(more.text.split()) <= MOST_WORDS or len(scene.objects) > 6
        for word in scene.words:
            assert f'"{word.text}"' in more.text
        listing = detailed.text.removeprefix("The image shows ").removesuffix(f" on {background}.")
        for text in (brief.text, listing):
            assert sum(_counted(phrase) for phrase in re.split(", | and ", text)) == len(scene.objects)
        said = Counter()
        for phrase in re.split(", | and ", listing):
            fitting = [
                o
                for o in scene.objects
                if _fits(phrase, o) and ("striped" in phrase or "dotted" in phrase or o.texture == "plain")
            ]
            assert len(fitting) == _counted(phrase)
            said.update(o.description for o in fitting)
        assert said == Counter(o.description for o in scene.objects)


def _counted(phrase: str) -> int:
    first = phrase.split()[0]
    return 1 if first in ("a", "an", "another") else NUMBERS.index(first)


def test_grounded_phrases_are_the_text_of_their_spans_and_fit_their_boxes(scenes: list[Scene]) -> None:
    for scene in scenes:
        at = {(o.box[:2], o.box[2:]): o for o in scene.objects}
        for annotation in _of(scene, "<CAPTION_TO_PHRASE_GROUNDING>"):
            assert annotation.query == annotation.text
            spans = Counter(r.span for r in annotation.regions)
            assert len({r.label for r in annotation.regions}) == len(spans)
            for region in annotation.regions:
                assert region.span is not None
                phrase = annotation.text[region.span[0] : region.span[1]]
                assert phrase == region.label
                assert _fits(phrase, at[region.parts[0]])
                if phrase.split()[0] in ("a", "an", *NUMBERS):
                    assert _counted(phrase) == spans[region.span]


def test_open_vocabulary_answers_are_all_and_only_what_fits(scenes: list[Scene]) -> None:
    absent = total = 0
    for scene in scenes:
        for annotation in _of(scene, "<OPEN_VOCABULARY_DETECTION>"):
            names = str(annotation.query).split("<and>")
            expected = [(n, (o.box[:2], o.box[2:])) for n in names for o in scene.objects if _fits(n, o)]
            assert [(r.label, r.parts[0]) for r in annotation.regions] == expected
            assert len(set(names)) == len(names)
            total += 1
            absent += not annotation.regions
    assert 0.06 < absent / total < 0.2


def test_a_referring_expression_fits_one_object(scenes: list[Scene]) -> None:
    kinds = Counter()
    for scene in scenes:
        for annotation in _of(scene, "<REFERRING_EXPRESSION_SEGMENTATION>"):
            expression = str(annotation.query)
            assert expression.startswith("the ")
            superlative = re.match(r"the (\w+(?:most|est)) ", expression)
            candidates = [o for o in scene.objects if _fits(expression, o)]
            if superlative:
                assert len(candidates) > 1
                keys = {
                    "leftmost": lambda o: o.centre[0],
                    "rightmost": lambda o: -o.centre[0],
                    "topmost": lambda o: o.centre[1],
                    "bottommost": lambda o: -o.centre[1],
                    "largest": lambda o: -o.area,
                    "smallest": lambda o: o.area,
                }
                candidates = [min(candidates, key=keys[superlative[1]])]
            kinds[superlative[1] if superlative else "look"] += 1
            assert len(candidates) == 1, (scene.seed, expression)
            assert annotation.regions == (Region("polygon", candidates[0].parts),)
    assert len(kinds) == 7
    assert all(count > 3 for count in kinds.values())


def test_region_questions_are_answered_by_the_object_in_the_box(scenes: list[Scene]) -> None:
    for scene in scenes:
        at = {(o.box[:2], o.box[2:]): o for o in scene.objects}
        for annotation in scene.annotations:
            if isinstance(annotation.query, Region) and annotation.task != "<REGION_TO_OCR>":
                thing = at[annotation.query.parts[0]]
                if annotation.task == "<REGION_TO_SEGMENTATION>":
                    assert annotation.regions[0].parts == thing.parts
                else:
                    wanted = {"<REGION_TO_CATEGORY>": thing.name, "<REGION_TO_DESCRIPTION>": thing.description}
                    assert annotation.text == wanted[annotation.task]


def test_printed_words_are_read_in_order(scenes: list[Scene]) -> None:
    for scene in scenes:
        texts = [w.text for w in scene.words]
        for annotation in _of(scene, "<OCR>"):
            assert annotation.text.split() == texts
        for annotation in _of(scene, "<OCR_WITH_REGION>"):
            assert [r.label for r in annotation.regions] == texts
            assert [r.parts[0] for r in annotation.regions] == [w.quad for w in scene.words]
        assert [a.text for a in _of(scene, "<REGION_TO_OCR>")] == texts
        if len(scene.words) == 2 and "\n" in _of(scene, "<OCR>")[0].text:
            assert scene.words[0].box[1] < scene.words[1].box[1]


def test_questions_have_true_answers_and_yes_is_as_likely_as_no(scenes: list[Scene]) -> None:
    presence = Counter()
    for scene in scenes:
        for annotation in _of(scene, "<VQA>"):
            question, answer = str(annotation.query), annotation.text
            if match := re.match(r"How many (\w+) are there", question):
                fitting = [o for o in scene.objects if match[1] in ("objects", plural(o.name))]
                assert answer == str(len(fitting))
            elif match := re.match(r"Is there an? (.+)\?", question):
                assert answer == ("yes" if any(_fits(match[1], o) for o in scene.objects) else "no")
                presence[answer] += 1
            elif question == "What colour is the background?":
                assert answer == scene.background.colour
            elif match := re.match(r"What colour is the (\w+)", question):
                assert [answer] == [o.colour for o in scene.objects if o.name == match[1]]
            elif match := re.match(r"What is the (\w+) object", question):
                assert [answer] == [o.name for o in scene.objects if o.colour == match[1]]
            else:
                assert question == "What is written?"
                assert answer == (" ".join(w.text for w in scene.words) or "nothing")
    assert 0.4 < presence["yes"] / presence.total() < 0.6


@pytest.mark.parametrize(
    ("noun", "with_article", "many"),
    [
        ("red cross", "a red cross", "red crosses"),
        ("orange star", "an orange star", "orange stars"),
        ("cherry", "a cherry", "cherries"),
        ("toy", "a toy", "toys"),
        ("box", "a box", "boxes"),
        ("torch", "a torch", "torches"),
    ],
)
def test_articles_and_plurals(noun: str, with_article: str, many: str) -> None:
    assert article(noun) == with_article
    assert plural(noun) == many
