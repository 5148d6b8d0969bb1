"""Pairs of content and style images: the files they are read from, their names, and what each sets for itself."""

from nst_lightning.files import Images
from nst_lightning.naming import MAX_NAME
from nst_lightning.pairs.choosing import Pairing, chosen, find_masks, pair_up
from nst_lightning.pairs.listing import COLUMNS, read_pairs
from nst_lightning.pairs.pair import GROUPS, Pair

__all__ = [
    "COLUMNS",
    "GROUPS",
    "MAX_NAME",
    "Images",
    "Pair",
    "Pairing",
    "chosen",
    "find_masks",
    "pair_up",
    "read_pairs",
]
