"""The small words of English: the closed classes, and enough adjectives and verbs to read captions by."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


DETERMINERS = _set("""
a an the this that these those some any no each every all both another other several many few much more most various
multiple numerous either neither my your his her its our their
""")
NUMBERS = _set("""
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty thirty forty fifty hundred thousand dozen dozens half
""")
PRONOUNS = _set("""
i me mine you yours he him she hers it they them theirs we us ours one ones oneself myself yourself himself herself
itself ourselves yourselves themselves who whom whose which what there here anybody anyone anything everybody everyone
everything nobody none nothing somebody someone something none few many several some all others this that these those
it's that's there's he's she's what's who's here's
""")
RELATIVE = _set("that this these those which who")
"""Determiners and pronouns that a verb may follow as its subject."""
PREPOSITIONS = _set("""
about above across after against along alongside amid among amongst around as at atop before behind below beneath beside
besides between beyond by despite down during for from in inside into like near of off on onto opposite out outside over
past per through throughout to toward towards under underneath until up upon via with within without
""")
CONJUNCTIONS = _set("and or but nor while when where because if than so yet whereas though although & then as")
ADVERBS = _set("""
very quite rather too also just only almost nearly really still even not n't again away together apart aside ahead back
forward upside outdoors indoors nearby downtown overhead side-by-side now always often never sometimes upwards downwards
upward downward somewhat extremely all-over next ready else well alone
""")
AUXILIARIES = _set("""
is are was were be been being am has have had having does do did doing can could will would may might must shall should
isn't aren't wasn't weren't don't doesn't didn't can't won't 's
""")
ADJECTIVES = _set("""
red orange yellow green cyan blue purple violet pink brown grey gray black white golden beige tan dark bright pale
colorful colourful multicolored multicoloured blonde blond small large big little tiny huge giant tall short long wide
narrow thick thin high low deep shallow old young new ancient modern vintage antique fresh dry wet hot cold warm cool
clean dirty messy neat tidy empty full open nice pretty beautiful cute ugly fancy plain noisy dotted round square flat
curved straight sharp soft hard smooth rough shiny fluffy furry fuzzy hairy snowy rainy sunny cloudy foggy grassy sandy
rocky muddy dusty rusty busy crowded quiet happy sad angry asleep awake alive dead wild raw ripe sweet sour tasty
delicious wooden metallic main same different similar own single double whole upper lower front rear asian african
american chinese english french german italian japanese mexican urban rural residential female male elderly several
gradient left right top bottom available able ready
""")
ADJECTIVE_ENDINGS = ("eful", "tiful", "ous", "less", "-colored", "-coloured", "-shaped")
ADJECTIVES_AS_NOUNS = _set("orange square double open plain single gradient cold")
"""Adjectives that name a thing when nothing follows them: "an orange"."""

_CLEAR_VERBS = """
sit hold ride wear carry eat swim fly stare pose enjoy contain include appear lie lay lean seem feature depict display
show read write sleep relax hang chase bring take make get go come give see hear know keep let try wait want need
perform prepare attempt follow fill cover surround consist become begin stay travel cook throw kick pull push lift reach
attach connect feed graze perch climb skateboard snowboard float pour cut bite lick sniff smile laugh talk speak listen
observe say gather sell buy grow fall happen allow lead help put set use have do wade peer cuddle grab tie
"""
_VERBS_OR_NOUNS = """
stand walk look play run jump drink work park drive cross watch catch rest swing surf race turn move dance wave hit line
face view point dress train land brush jog hike sail skate ski ride kiss hug shop share stop start fight call light
"""
CLEAR_VERBS = _set(_CLEAR_VERBS)
AMBIGUOUS_VERBS = _set(_VERBS_OR_NOUNS)
"""Verbs that are as often nouns: taken for verbs only where no noun can stand."""
PAST_FORMS = _set("""
sat stood held hung lit laid lain seen shown taken given made built caught written drawn worn eaten thrown torn broken
driven ridden flown grown known kept left lost met paid put read run sent set shot sold slept spent spread stuck strewn
swung taught told tied tied-up went came took made got gone done hit cut slid fed led fell bent
""")
NOUNS_IN_ING = _set("""
building buildings painting paintings ceiling railing clothing wedding evening morning string ring king wing thing
spring swing icing topping toppings frosting earring pudding sling awning lightning dumpling dumplings duckling sibling
siblings covering crossing drawing drawings opening flooring wiring bedding stuffing landing belongings lighting
surfing skiing snowboarding skateboarding something nothing everything anything
""")
NOUNS_IN_ED = _set("bed red shed sled seed weed reed speed feed moped hundred steed bobsled bedspread tuxed")
GERUNDS_BEFORE_NOUNS = _set("""
parking dining living washing shopping cutting swimming frying baking steering changing waiting boarding landing
cooking serving skating playing training fishing rowing racing running drying dressing traffic vending folding wrapping
""")
NOUNS_IN_LY = _set("family belly lily jelly butterfly fly ally bully trolly doily assembly supply firefly barfly italy")

MEASURES = _set("""
group bunch couple pair number lot lots variety row rows set pile piles stack slice slices piece pieces herd flock
collection assortment crowd bowl plate cup glass bottle basket box bag handful bundle cluster series line lines types
kinds type kind
""")
CONTAINERS = _set("bowl plate cup glass bottle basket box bag")
"""Measures that are things of their own: "a bowl of soup" is about the bowl."""

PLACES = _set("""
left right top bottom middle center centre front back side sides background foreground edge corner end part distance
rear inside outside above below way day night daytime nighttime time air
""")
PICTURES = _set("image images picture pictures photo photos photograph photographs view shot scene closeup close-up")

BLACKLIST = (
    PRONOUNS
    | PICTURES
    | PLACES
    | frozenset({"a group", "group", "other objects", "another object", "objects", "lots", "lot", "a set", "set"})
    | frozenset({"each other", "one another", "any", "another", "each", "close", "couple", "bunch", "number"})
)
"""Phrases without their determiner that name nothing one could draw a box around.

Pronouns and abstract words after the phrases that Florence-2's published post-processing leaves ungrounded.
"""

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "policemen": "policeman",
    "firemen": "fireman",
    "fishermen": "fisherman",
    "businessmen": "businessman",
    "snowmen": "snowman",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "teeth": "tooth",
    "oxen": "ox",
    "buses": "bus",
    "gases": "gas",
    "lenses": "lens",
    "shoes": "shoe",
    "toes": "toe",
    "canoes": "canoe",
    "knives": "knife",
    "wives": "wife",
    "lives": "life",
    "gloves": "glove",
    "stoves": "stove",
    "waves": "wave",
    "sleeves": "sleeve",
    "caves": "cave",
    "olives": "olive",
    "doves": "dove",
    "graves": "grave",
    "chives": "chive",
    "hives": "hive",
    "movies": "movie",
    "cookies": "cookie",
    "brownies": "brownie",
    "zombies": "zombie",
    "selfies": "selfie",
    "ties": "tie",
    "pies": "pie",
    "axes": "axe",
    "caches": "cache",
}
_UNCHANGED = _set("""
sheep fish deer series species aircraft scissors pants jeans shorts glasses sunglasses goggles skis binoculars tongs
clothes grass glass dress bus gas lens cactus canvas christmas tennis news bass compass plus campus chess always
""") - {"glasses", "skis"}


def singular(word: str) -> str:
    """A noun in the singular, in lower case, by the rules of English spelling: "crosses" -> "cross".

    A word that is no plural comes back as it is.
    """
    word = word.lower()
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _UNCHANGED or len(word) < 4:
        return word
    if word.endswith("ves"):
        return word[:-3] + "f"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zzes", "ches", "shes", "oes")):
        return word[:-2]
    if word.endswith("uses") and word[-5:-4] not in ("", "o", "a"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def is_adjective(word: str) -> bool:
    """Whether a word (lower case) is known to describe rather than to name."""
    return word in ADJECTIVES or word.endswith(ADJECTIVE_ENDINGS)


def is_determiner(word: str) -> bool:
    """Whether a word (lower case) only points or counts: an article, "several", a number."""
    return word in DETERMINERS or word in NUMBERS or word.isdigit()


def is_qualifier(word: str) -> bool:
    """Whether a word before a noun only counts, points or describes, so that the noun alone says what the thing is."""
    word = word.lower()
    participle = word.endswith(("ed", "ing")) and word not in NOUNS_IN_ED | NOUNS_IN_ING | GERUNDS_BEFORE_NOUNS
    known = is_determiner(word) or word in MEASURES or word in ADVERBS or word == "of"
    return known or participle or is_adjective(word)


def is_blacklisted(phrase: str, blacklist: frozenset[str] = BLACKLIST) -> bool:
    """Whether a phrase, with or without the determiners before it, in any case, is one of `blacklist`."""
    words = phrase.lower().split()
    while words:
        if " ".join(words) in blacklist:
            return True
        if words[0] not in DETERMINERS:
            return False
        del words[0]
    return False


def verb_forms(base: str) -> tuple[str, str]:
    """A verb and its form with -s: "carry", "carries"."""
    if base.endswith("y") and base[-2] not in "aeiou":
        return base, base[:-1] + "ies"
    return base, base + ("es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


CLEAR_FORMS = {form: form == base for base in CLEAR_VERBS for form in verb_forms(base)}
"""Form -> whether it is the plain one (of a plural subject, after "to")."""
AMBIGUOUS_FORMS = {form: form == base for base in AMBIGUOUS_VERBS - CLEAR_VERBS for form in verb_forms(base)}
