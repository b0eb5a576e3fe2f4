"""Networks only: gates, cells, layers, backbones, decoders, recogniser. Tensors in, tensors out."""

if __name__ == "models":
    raise ImportError("this folder is the package str_app.models: import it by that name")
