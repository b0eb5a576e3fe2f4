"""Networks only: gates, cells, layers, backbone, decoder, recogniser. Tensors in, tensors out."""
