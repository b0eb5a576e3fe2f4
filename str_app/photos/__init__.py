"""Whole photographs: finding the words, reading them, and putting them in reading order."""

HELP = "What finds the words: pp-ocrv6-small (needs 'str-app[photo]'); auto: the best one installed."
