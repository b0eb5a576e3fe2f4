"""Whole photographs: finding the words, reading them, and putting them in reading order."""

HELP = (
    "What finds the words: pp-ocrv6-small (needs 'str-app[photo]'), or the file of a word detector; "
    "auto: the best one installed."
)
# Larger photographs are shrunk to it to find the words. With 1280 the detector takes 1.7 times as long and one point
# more of the words is found and read; see docs/how-to/photographs.md.
LONGEST_SIDE = 960
