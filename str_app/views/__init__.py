"""What the network sees of a crop: turns, parts of long lines, further looks."""
