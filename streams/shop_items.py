"""The catalogue of the shop in a box: believable items, drawn from a seed.

In: how many items, a generator of random numbers.
Out: `Items`, an array per property, with titles and descriptions.
Must not know: days, events, stock. Rule: the same generator state gives the same catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Category:
    """A shelf of the shop: words for titles, a range of prices, and when in the year and week it sells.

    Attributes
    ----------
    code
        First part of its SKUs.
    prices
        Lowest and highest usual price.
    peak_day, swing
        Day of the year on which it sells best, and by which part of its mean it sells better then.
    """

    name: str
    code: str
    nouns: tuple[str, ...]
    kinds: tuple[str, ...]
    prices: tuple[float, float]
    peak_day: int
    swing: float


CATEGORIES = (
    Category("Tea & Coffee", "TEA", ("Teapot", "Tea Caddy", "Coffee Mug", "Espresso Cup", "Milk Jug", "Tea Towel"),
             ("Enamel", "Stoneware", "Porcelain", "Glass", "Cast Iron"), (4, 38), 340, 0.25),
    Category("Kitchen", "KIT", ("Mixing Bowl", "Cake Tin", "Bread Bin", "Chopping Board", "Storage Jar", "Apron"),
             ("Oak", "Ceramic", "Tin", "Linen", "Marble"), (5, 49), 345, 0.20),
    Category("Candles", "CAN", ("Pillar Candle", "Tealight Holder", "Lantern", "Scented Candle", "Candlestick"),
             ("Beeswax", "Vanilla", "Brass", "Glass", "Cedar"), (3, 29), 330, 0.55),
    Category("Stationery", "STA", ("Notebook", "Pencil Case", "Gift Wrap", "Greeting Card", "Desk Planner", "Tape Set"),
             ("Recycled", "Leather", "Dotted", "Cotton", "Cork"), (2, 24), 245, 0.30),
    Category("Toys", "TOY", ("Jigsaw", "Spinning Top", "Toy Train", "Skipping Rope", "Building Blocks", "Rag Doll"),
             ("Wooden", "Felt", "Knitted", "Painted", "Tin"), (4, 45), 344, 0.60),
    Category("Garden", "GAR", ("Plant Pot", "Watering Can", "Bird Feeder", "Hanging Basket", "Trowel", "Seed Box"),
             ("Terracotta", "Zinc", "Willow", "Copper", "Slate"), (5, 59), 150, 0.75),
    Category("Bath", "BAT", ("Bath Towel", "Soap Dish", "Bath Salts", "Hand Cream", "Wash Bag", "Sponge"),
             ("Lavender", "Bamboo", "Cotton", "Sea Mineral", "Olive"), (3, 32), 20, 0.15),
    Category("Home", "HOM", ("Cushion", "Throw", "Picture Frame", "Wall Clock", "Doormat", "Vase", "Door Stop"),
             ("Velvet", "Wool", "Rattan", "Ceramic", "Jute"), (8, 79), 320, 0.20),
    Category("Bags", "BAG", ("Tote Bag", "Lunch Bag", "Backpack", "Shopping Trolley", "Purse", "Picnic Basket"),
             ("Canvas", "Waxed", "Jute", "Quilted", "Wicker"), (6, 64), 170, 0.35),
    Category("Christmas", "XMA", ("Bauble", "Advent Calendar", "Stocking", "Garland", "Tree Star", "Snow Globe"),
             ("Glass", "Felt", "Paper", "Birch", "Silver"), (2, 35), 342, 2.60),
)  # fmt: skip

STYLES = ("Red", "Sage", "Ivory", "Navy", "Mustard", "Rose", "Charcoal", "Teal", "Striped", "Polka Dot", "Vintage",
          "Floral", "Botanical", "Gingham", "Retro", "Hand-Painted", "Woodland", "Harbour")  # fmt: skip
SIZES = ("", "Small", "Large", "Set of 2", "Set of 4", "Set of 6", "Mini", "Family Size", "Tall", "Round")
BRANDS = ("Fenwick & Daughters", "Harbour Lane", "Oak & Ember", "Little Otter", "Mossdale", "Kestrel Works", "Pinecone",
          "Saltmarsh", "Thimble & Co", "Wren House", "Ashby Mill", "Copperleaf")  # fmt: skip
OPENINGS = ("Made in small batches", "A favourite of our customers", "Designed in our studio", "Made to last",
            "An everyday classic", "Carefully finished by hand")  # fmt: skip
USES = ("a thoughtful gift", "small homes", "long evenings", "everyday use", "busy families", "a quiet corner")

ZIPF_EXPONENT = 0.9
"""Sales by rank fall like rank^-0.9: between the 0.8 to 1.2 usually reported for shops with a long tail."""

INTERMITTENT_SHARE = 0.15
"""Items that sell on few days and then several at once, on top of the slow tail."""

TRADE_SHARE = 0.3
"""Items that also have a trade price."""


@dataclass(frozen=True)
class Items:
    """The catalogue, an entry per item in each field; items that come later are in it from the start.

    Attributes
    ----------
    price, cost
        Regular web price and unit cost.
    lines_per_day
        Order lines on an average day without any effect.
    line_units
        Mean units of an order line.
    lumpy
        True for intermittent items, whose order lines come in bunches.
    elasticity
        Exponent by which demand answers a lower price.
    launch_day, retire_day
        First and last day on sale; -1 = from the start, or never.
    successor_of
        Index of the item that a new one replaces, -1 = none.
    """

    sku: list[str]
    title: list[str]
    description: list[str]
    category: Ints
    brand: list[str]
    supplier: list[str]
    price: Floats
    cost: Floats
    lines_per_day: Floats
    line_units: Floats
    lumpy: Bools
    elasticity: Floats
    has_trade: Bools
    rating: Floats
    lead_days: Ints
    pack: Ints
    moq: Ints
    launch_day: Ints
    retire_day: Ints
    successor_of: Ints

    def __len__(self) -> int:
        return len(self.sku)


def draw_items(count: int, rng: np.random.Generator, *, days: int, lines_per_item: float = 1.5) -> Items:
    """Draw a catalogue.

    Parameters
    ----------
    count
        Items, those included that are launched during the run (about one in twelve).
    days
        Length of the run over which launches are spread.
    lines_per_item
        Order lines per item on an average day, the mean over the catalogue.

    Examples
    --------
    >>> items = draw_items(200, np.random.default_rng(1), days=90)
    >>> len(items), len(set(items.title)), bool((items.cost < items.price).all())
    (200, 200, True)
    """
    category = rng.integers(0, len(CATEGORIES), count)
    title, description, brand = _texts(category, rng)
    low, high = np.array([CATEGORIES[c].prices for c in category]).T if count else np.zeros((2, 0))
    price = _price_points(low * (high / low) ** rng.beta(1.6, 2.2, count))
    weight = rng.permutation(np.arange(1, count + 1, dtype=np.float64)) ** -ZIPF_EXPONENT
    lumpy = rng.random(count) < INTERMITTENT_SHARE
    weight = np.where(lumpy, weight * 0.25, weight)
    launch, retire, successor_of = _lives(count, days, rng)
    pack = rng.choice([1, 4, 6, 12, 24], count, p=[0.3, 0.2, 0.2, 0.2, 0.1])
    return Items(
        sku=[f"{CATEGORIES[c].code}-{n:05d}" for n, c in enumerate(category.tolist(), 1)],
        title=title,
        description=description,
        category=category,
        brand=brand,
        supplier=[f"SUP-{n:02d}" for n in rng.integers(1, 15, count).tolist()],
        price=price,
        cost=np.round(price * rng.uniform(0.33, 0.48, count), 2),
        lines_per_day=weight * (lines_per_item * count / max(weight.sum(), 1e-12)),
        line_units=np.where(lumpy, rng.choice([4.0, 6.0, 12.0], count), 1 + rng.gamma(1.2, 0.5, count)),
        lumpy=lumpy,
        elasticity=rng.uniform(1.4, 3.4, count),
        has_trade=rng.random(count) < TRADE_SHARE,
        rating=np.clip(rng.normal(4.2, 0.5, count), 1.5, 4.9),
        lead_days=rng.integers(2, 15, count),
        pack=pack,
        moq=pack * rng.choice([1, 2, 4], count, p=[0.6, 0.3, 0.1]),
        launch_day=launch,
        retire_day=retire,
        successor_of=successor_of,
    )


def _price_points(price: Floats) -> Floats:
    """Move prices to the endings that shops use: .95 and .99 mostly, .50 below five."""
    whole = np.floor(price)
    ending = np.where(whole < 5, np.where(price - whole < 0.5, 0.5, 0.95), 0.99)
    return np.asarray(np.round(whole + ending, 2), np.float64)


def _texts(category: Ints, rng: np.random.Generator) -> tuple[list[str], list[str], list[str]]:
    """Titles without repeats, a description of two sentences, and a brand."""
    count = len(category)
    titles: list[str] = [""] * count
    for c, shelf in enumerate(CATEGORIES):
        members = np.flatnonzero(category == c)
        combinations = len(SIZES) * len(STYLES) * len(shelf.kinds) * len(shelf.nouns)
        picks = rng.permutation(combinations)
        for at, member in enumerate(members.tolist()):
            rest, size = divmod(int(picks[at % combinations]), len(SIZES))
            rest, style = divmod(rest, len(STYLES))
            noun, kind = divmod(rest, len(shelf.kinds))
            words = (SIZES[size], STYLES[style], shelf.kinds[kind], shelf.nouns[noun])
            edition = f" No. {at // combinations + 1}" if at >= combinations else ""
            titles[member] = " ".join(word for word in words if word) + edition
    brand = [BRANDS[b] for b in rng.integers(0, len(BRANDS), count)]
    opening, use = rng.integers(0, len(OPENINGS), count), rng.integers(0, len(USES), count)
    described = [
        f"{OPENINGS[o]} by {b}. This {t.lower()} suits {USES[u]}."
        for t, b, o, u in zip(titles, brand, opening, use, strict=True)
    ]
    return titles, described, brand


def _lives(count: int, days: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints]:
    """Launch one item in twelve during the run; a third of these take the place of an older item."""
    launch, retire = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    successor_of = np.full(count, -1, np.int64)
    order = rng.permutation(count)
    new, old = order[: count // 12], order[count // 12 :]
    launch[new] = rng.integers(min(5, days), max(days, 6), len(new))
    replacing = new[: len(new) // 3]
    successor_of[replacing] = old[: len(replacing)]
    retire[old[: len(replacing)]] = launch[replacing] + 14  # both are on sale for two weeks
    return launch, retire, successor_of
