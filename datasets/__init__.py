"""Where samples come from: LMDB and folders, converters, mixing, augmentation, the renderer, text corpora."""

if __name__ == "datasets":
    raise ImportError("this folder is the package str_app.datasets: import it by that name")
