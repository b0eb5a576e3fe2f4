"""From encoded images to readings: decoding, batching, model processes."""
