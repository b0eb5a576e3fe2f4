"""Whole photographs: finding the words, reading them, and putting them in reading order."""

HELP = (
    "What finds the words: pp-ocrv6-small (needs 'str-app[photo]'), or the file of a word detector; "
    "auto: the best one installed."
)
# Larger photographs are shrunk to it to find the words. With 960 the detector takes half as long, and 0.6 points less
# of composed scenes is found and read; see docs/how-to/photographs.md.
LONGEST_SIDE = 1280
LEAST_LONGEST_SIDE = 64  # words of a smaller picture would have letters of a few pixels
