"""The closed world of the scenes: every name a label may hold, and the colour each colour word stands for.

The order of a tuple is the order of the classes in the dense heads (`dense.py`), and the order of `SHAPES` is the
order of the long tail: the first is the most frequent.
"""

SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "arrow",
    "crescent",
    "diamond",
    "hexagon",
    "heart",
    "bolt",
)

COLOURS: dict[str, tuple[int, int, int]] = {  # RGB
    "red": (212, 36, 38),
    "orange": (244, 132, 22),
    "yellow": (247, 220, 48),
    "green": (44, 158, 62),
    "cyan": (64, 206, 214),
    "blue": (38, 78, 206),
    "purple": (124, 48, 170),
    "pink": (241, 132, 186),
    "brown": (118, 72, 38),
    "grey": (138, 138, 141),
    "black": (26, 26, 28),
    "white": (243, 243, 243),
}
ACHROMATIC = ("grey", "black", "white")
"""The colour words that stay right in a scene without colour."""

DARK_PARTNERS = ("red", "green", "cyan", "blue", "purple", "brown")
"""Colours whose second tone may be a darker one; to the others (a dark orange is brown) it is light."""

TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "gradient", "noisy", "checkered", "striped")

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
"""Everything a printed word is made of; its position here is a character's class."""

RANDOM_CHARACTERS = CHARACTERS.replace("0", "").replace("1", "")
"""What random strings draw from: 0 and 1 cannot be told from O and I in most fonts."""

_NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = tuple(_NUMBERS.split())

_LEXICON = """
STOP EXIT OPEN CLOSED PUSH PULL SALE CAFE BANK TAXI BUS HOTEL PARK BAR SHOP FOOD PIZZA TEA COFFEE MENU ENTER DANGER SLOW
YIELD ONE WAY NORTH SOUTH EAST WEST LEFT RIGHT UP DOWN IN OUT ON OFF HOT COLD WET DRY FIRE WATER GAS OIL AIR POLICE
SCHOOL ZONE ROAD STREET AVENUE BRIDGE RIVER LAKE BEACH CITY TOWN HALL HOUSE MARKET STORE BOOKS MUSIC CINEMA FILM RADIO
PHONE NEWS POST MAIL HELP INFO TICKET TRAIN METRO STATION PORT GATE FLIGHT CAR BIKE TRUCK TIRES WASH REPAIR DOCTOR
DENTIST CLINIC LAB KEEP CLEAR QUIET PRIVATE STAFF ONLY NO YES FREE NEW BEST BIG MINI SUPER APPLE LEMON MILK BREAD CAKE
RICE SOUP SALT SUGAR JUICE WINE BEER GARDEN FLOWER TOYS GAME SPORT GYM POOL SPA SALON PAINT GLASS WOOD STEEL
"""
LEXICON = tuple(_LEXICON.split())
"""Words of signs."""
