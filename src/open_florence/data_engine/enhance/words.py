"""English words as labels and captions need them: singular and plural, numbers, articles, names of kinds of things."""

from __future__ import annotations

import re
from collections.abc import Iterable

from open_florence.noun_phrases import singular

_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = tuple(_NUMBERS.split())

_INVARIABLE = "sheep deer fish aircraft scissors pants jeans shorts sunglasses series luggage cattle"
_SAME = frozenset(_INVARIABLE.split())
"""One form for one and for many."""

_IRREGULAR = """
man:men woman:women person:people child:children mouse:mice goose:geese foot:feet tooth:teeth ox:oxen knife:knives
wife:wives wolf:wolves leaf:leaves loaf:loaves shelf:shelves calf:calves bus:buses policeman:policemen fireman:firemen
snowman:snowmen tomato:tomatoes potato:potatoes
"""
_PLURALS = dict(pair.split(":") for pair in _IRREGULAR.split())

_KINDS = {
    "person": "man woman boy girl guy lady child kid baby toddler adult gentleman teenager player batter pitcher "
    "catcher umpire skier snowboarder surfer skateboarder skater rider cyclist biker jockey pedestrian passenger "
    "driver worker chef officer policeman soldier student bride groom tourist swimmer hiker farmer athlete dancer",
    "bicycle": "bike",
    "motorcycle": "motorbike",
    "airplane": "plane jet airliner aircraft aeroplane",
    "car": "sedan taxi cab suv automobile",
    "truck": "pickup lorry",
    "boat": "ship canoe kayak sailboat ferry yacht rowboat",
    "train": "locomotive",
    "traffic light": "stoplight traffic_signal stop_light",
    "fire hydrant": "hydrant",
    "stop sign": "",
    "parking meter": "",
    "bird": "duck pigeon seagull gull parrot goose swan owl flamingo crow eagle",
    "cat": "kitten kitty",
    "dog": "puppy",
    "horse": "pony foal",
    "sheep": "lamb",
    "cow": "bull calf cattle ox",
    "teddy bear": "teddy stuffed_bear",
    "backpack": "rucksack",
    "umbrella": "parasol",
    "handbag": "purse",
    "tie": "necktie",
    "suitcase": "luggage",
    "frisbee": "disc disk",
    "sports ball": "ball",
    "baseball bat": "bat",
    "baseball glove": "mitt",
    "skateboard": "board",
    "snowboard": "board",
    "surfboard": "board",
    "tennis racket": "racket racquet tennis_racquet",
    "wine glass": "glass",
    "cup": "mug",
    "sandwich": "hamburger burger",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "cake": "cupcake",
    "chair": "armchair",
    "couch": "sofa",
    "potted plant": "plant houseplant",
    "dining table": "table",
    "tv": "television",
    "laptop": "computer",
    "remote": "remote_control controller",
    "cell phone": "phone cellphone smartphone mobile_phone",
    "microwave": "microwave_oven",
    "oven": "stove",
    "refrigerator": "fridge",
    "hair drier": "hair_dryer blow_dryer",
}
"""Class (of COCO's 80, where names differ from what people say) -> what else a caption may call such a thing."""


def _kinds() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for kind, names in _KINDS.items():
        for name in names.split():
            found.setdefault(name.replace("_", " "), set()).add(kind)
    return {name: frozenset(kinds) for name, kinds in found.items()}


KINDS: dict[str, frozenset[str]] = _kinds()
"""A name -> the classes a thing of that name may be labelled with: "puppy" -> {"dog"}."""
COMPOUNDS = frozenset(name for name in (*_KINDS, *KINDS) if " " in name)
"""Names of two words, which are not of the kind of their last word: a hot dog is no dog."""


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation: "A dog's T-shirt." -> a dog's t-shirt."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def plural(noun: str) -> str:
    """A noun phrase with its last word in the plural: "red box" -> "red boxes"."""
    rest, _, last = noun.rpartition(" ")
    return f"{rest} {_plural(last)}".strip()


def _plural(word: str) -> str:
    if word in _PLURALS or word in _SAME:
        return _PLURALS.get(word, word)
    if word != singular(word):
        return word
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def is_plural(word: str) -> bool | None:
    """Whether a noun in lower case stands for several; None where its form does not say."""
    return None if word in _SAME else word != singular(word)


def name_key(label: str) -> str:
    """A label by which two are compared: lower case, without articles, the last word in the singular."""
    parts = [word for word in words(label.replace("_", " ")) if word not in ("a", "an", "the")]
    return " ".join([*parts[:-1], singular(parts[-1])]) if parts else ""


def is_called(name: str, label: str) -> bool:
    """Whether a thing labelled `label` may be called `name`, or one labelled `name` `label`; both are name keys."""
    return name == label or label in KINDS.get(name, ()) or name in KINDS.get(label, ())


def number_of(word: str) -> int | None:
    """The count a word says: "two", "12", "both"; None for any other word."""
    if word.isdecimal():
        return int(word)
    return NUMBERS.index(word) if word in NUMBERS else {"both": 2, "a": 1, "an": 1, "another": 1}.get(word)


def counted(noun: str, count: int) -> str:
    """ "a red star", "three red stars", "30 red stars"; what has no singular takes no article: "scissors"."""
    if count != 1:
        return f"{NUMBERS[count] if count < len(NUMBERS) else count} {plural(noun)}"
    last = noun.split()[-1].lower() if noun.split() else ""
    if last.endswith("s") and is_plural(last) is not False:
        return noun
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def joined(items: Iterable[str]) -> str:
    """ "A, B and C"; empty for nothing."""
    *most, last = list(items) or [""]
    return f"{', '.join(most)} and {last}" if most else last
