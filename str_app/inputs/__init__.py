"""What callers hand over: images, photographs with regions."""
