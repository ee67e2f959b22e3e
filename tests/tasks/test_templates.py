import pytest

from open_florence.errors import OpenFlorenceError
from open_florence.tasks.templates import TEMPLATES, fill


@pytest.mark.parametrize(
    ("template", "name", "sentence"),
    [
        ("a photo of a {}", "star", "a photo of a star"),
        ("a photo of a {}", "orange star", "a photo of an orange star"),
        ("A {} here", "arrow", "An arrow here"),
        ("sea {}", "urchin", "sea urchin"),
        ("a {} beside a {}", "egg", "an egg beside an egg"),
        ("{}", "a {} b", "a {} b"),
    ],
)
def test_names_take_their_place_and_their_article(template: str, name: str, sentence: str) -> None:
    assert fill(template, name) == sentence


def test_a_template_without_a_place_is_refused() -> None:
    with pytest.raises(OpenFlorenceError, match=r"'a photo' has no \{\} where"):
        fill("a photo", "cat")


def test_the_templates_themselves_have_one() -> None:
    assert all("cat" in fill(template, "cat") for template in TEMPLATES)
