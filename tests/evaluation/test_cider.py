"""CIDEr equal to pycocoevalcap, and words equal to Stanford's tokenizer, both as recorded from those programs.

Recorded with pycocoevalcap (its `Cider` after its `PTBTokenizer`, stanford-corenlp-3.4.1, Java 17).
"""

import json
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_florence.errors import OpenFlorenceError
from open_florence.evaluation.cider import caption_words, cider

PTB = [  # caption, the words PTBTokenizer leaves of it
    ("Two dogs' bowls and the children's toys aren't here.", "two dogs bowls and the children 's toys are n't here"),
    ("I can't see it; it's dark, they're asleep.", "i ca n't see it it 's dark they 're asleep"),
    ("He'd said he'd've come, we've left and she'll wait.", "he 'd said he 'd 've come we 've left and she 'll wait"),
    ("A colour photo of a grey centre.", "a colour photo of a grey centre"),
    ('A woman said "Hello there!" to the 2-year-old boy.', "a woman said hello there to the 2-year-old boy"),
    ("A sign reads 'STOP' in front of the U.S. embassy.", "a sign reads stop in front of the u.s. embassy"),
    ("Mr. Smith met Dr. Who at St. Mary's Ave. No. 5.", "mr. smith met dr. who at st. mary 's ave. no. 5"),
    ("The clock shows 5:30 p.m. or 5:30pm at 10 o'clock.", "the clock shows 5:30 p.m. or 5:30 pm at 10 o'clock"),
    ("A $20.50 price tag, 50% off, #1 in town.", "a $ 20.50 price tag 50 % off # 1 in town"),
    ("A black-and-white photo - very old -- of a T-shirt...", "a black-and-white photo very old of a t-shirt"),
    ("A well–lit room — with a dash.", "a well lit room with a dash"),
    ("Salt & pepper, B&W and R&B.", "salt & pepper b&w and r&b"),
    ("Bread/butter and/or jam at 1/2 price.", "bread/butter and/or jam at 1/2 price"),
    ("They cannot stand, wanna eat and gotta go.", "they can not stand wan na eat and got ta go"),
    ("What a view!! Really?! Yes!", "what a view !! really ?! yes"),
    ("A cup (with tea) and [a saucer].", "a cup -lrb- with tea -rrb- and -lsb- a saucer -rsb-"),
    ("A field of 3,000 plants at -5 degrees.", "a field of 3,000 plants at -5 degrees"),
    ("Curly “quotes” and don’t.", "curly quotes and do n't"),
    ("A plane,a train;and a car:all here.", "a plane a train and a car all here"),
    ("A café with crème brûlée.", "a café with crème brûlée"),
    ("Hors d'oeuvres, O'Brien and the '90s.", "hors d'oeuvres o'brien and the '90s"),
    ("I-95, U.S.A. and a D.V.D player", "i-95 u.s.a. and a d.v.d player"),
    ("dot...cat this is the end.A new one", "dot cat this is the end.a new one"),
    ("A dog * running ** fast @ the park", "a dog * running ** fast @ the park"),
    ("see www.example.com/photos or a.b@example.com", "see www.example.com/photos or a.b@example.com"),
    ("  leading   spaces ", "leading spaces"),
    ("", ""),
    ("...", ""),
]


@pytest.mark.parametrize(("caption", "words"), PTB)
def test_words_are_the_penn_treebanks(caption, words):
    assert caption_words(caption) == words.split()


REFERENCES = [
    ["A man rides a wave on a surfboard.", "A surfer on a big wave.", "The man is surfing."],
    ["Two dogs play with a ball.", "A dog catches a ball as another dog watches."],
    ["A kitchen with a stove, a sink and a window.", "An empty kitchen."],
    ["A man walks two dogs in the park."],
]
CAPTIONS = ["a man riding a wave on a surfboard", "two dogs play with a ball", "a dog in a kitchen", ""]
RECORDED = [2.5284964615818395, 5.430205987685199, 0.7704876600738795, 0.0]


def test_equal_to_pycocoevalcap():
    tally = cider(REFERENCES, CAPTIONS)
    assert tally.hits == pytest.approx(RECORDED, abs=1e-9)
    assert tally.count == 4


def test_one_persons_captions_against_the_others(data_folder):
    captions = defaultdict(list)
    with (data_folder / "coco_captions_val2017" / "captions.jsonl").open() as file:
        for line in file:
            record = json.loads(line)
            captions[record["image_id"]].append(record["caption"])
    images = list(captions.values())[:600]
    tally = cider([texts[1:] for texts in images], [texts[0] for texts in images])
    assert tally.value == pytest.approx(0.8144766539265977, abs=1e-9)  # words split by Java, scored by pycocoevalcap
    low, high = tally.interval()
    assert 0.75 < low < tally.value < high < 0.9


def test_a_reference_itself_is_best_and_length_counts():
    references = [["a red star above a ring"], ["two dogs on a sofa"], ["a bowl of fruit and a cup"]]
    perfect = cider(references, [texts[0] for texts in references])
    assert perfect.hits == pytest.approx([10.0] * 3)
    longer = cider(references, [texts[0] + " " + texts[0] for texts in references])
    assert (longer.hits < perfect.hits).all()


def test_a_single_image_says_nothing():
    assert cider([["a dog"]], ["a dog"]).value == 0.0
    assert np.isnan(cider([], []).value)


def test_an_image_without_a_caption_is_named():
    with pytest.raises(OpenFlorenceError, match="image 1, which has none"):
        cider([["a"], []], ["a", "b"])


WORDS = st.lists(st.sampled_from("a red blue star ring above below two".split()), max_size=8).map(" ".join)  # noqa: SIM905


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), WORDS), max_size=6))
def test_never_outside_its_range(data):
    tally = cider([references for references, _ in data], [caption for _, caption in data])
    assert ((tally.hits >= 0) & (tally.hits <= 10 + 1e-9)).all()
