from hypothesis import given
from hypothesis import strategies as st

from open_florence.reading_order import read_lines, read_text
from open_florence.scenes import make_scene
from open_florence.schema import Region


def word(text, x, y, height=10):
    return Region.box(x, y, x + 8, y + height, label=text)


def test_lines_are_read_from_the_top_and_words_from_the_left():
    words = [word("d", 12, 21), word("b", 10, 2), word("c", 0, 20), word("a", 0, 0)]
    assert read_text(words) == "a b\nc d"


def test_a_line_may_run_askew():
    assert read_text([word(c, 10 * k, 3 * k) for k, c in enumerate("abcdef")]) == "a b c d e f"


def test_empty_words_are_left_out():
    assert read_text([]) == ""
    assert read_text([word(" ", 0, 0), word("a", 10, 0)]) == "a"


@given(st.permutations([word(c, x, y) for c, x, y in [("a", 0, 0), ("b", 20, 2), ("c", 0, 30), ("d", 9, 30)]]))
def test_the_order_of_the_words_does_not_matter(words):
    assert read_text(words) == "a b\nc d"
    assert sorted(map(id, words)) == sorted(id(one) for line in read_lines(words) for one in line)


def test_scenes_are_read_as_they_were_written():
    for seed in range(30):
        said = {a.task: a for a in make_scene(seed).sample.annotations}
        if "<OCR_WITH_REGION>" in said:
            assert read_text(said["<OCR_WITH_REGION>"].regions) == said["<OCR>"].text
