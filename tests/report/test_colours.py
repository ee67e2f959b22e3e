"""Colours: the same label the same colour everywhere, two labels of one picture never the same."""

from open_florence.report.colours import COLOURS, Palette, ink


def test_a_label_has_the_same_colour_in_every_report() -> None:
    assert Palette().colour("circle") == Palette().colour("circle")


def test_labels_are_apart_while_there_are_colours() -> None:
    palette = Palette()
    labels = [f"label {number}" for number in range(len(COLOURS))]
    colours = [palette.colour(label) for label in labels]
    assert len(set(colours)) == len(COLOURS)
    assert [palette.colour(label) for label in labels] == colours


def test_labels_of_one_picture_are_apart_even_when_all_colours_are_taken() -> None:
    palette = Palette()
    for number in range(100):
        palette.colour(f"label {number}")
    labels = [f"another {number}" for number in range(len(COLOURS))]
    picture = palette.within(labels)
    assert len({picture.colour(label) for label in labels}) == len(COLOURS)


def test_a_picture_keeps_the_colours_of_the_palette() -> None:
    palette = Palette()
    colours = {label: palette.colour(label) for label in ("RBC", "WBC", "Platelets")}
    for shown in (["Platelets", "RBC"], ["WBC"], ["RBC", "WBC", "Platelets"]):
        picture = palette.within(shown)
        assert {label: picture.colour(label) for label in shown} == {label: colours[label] for label in shown}


def test_any_string_is_a_label() -> None:
    for label in ("", "猫", "\0", "\ud800", "a" * 100_000):
        assert Palette().colour(label) in COLOURS


def test_letters_are_white_unless_the_colour_is_bright() -> None:
    assert ink("#000000") == ink("#3e8ef7") == "#ffffff"
    assert ink("#ffffff") == ink("#f5a623") != "#ffffff"
