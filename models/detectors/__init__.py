"""Networks that find text: in photographs, and words in lines."""
