"""Data: LMDBs and folders of crops, converters, mixing, augmentation, the renderer, text corpora."""

if __name__ == "datasets":
    raise ImportError("this folder is the package str_app.datasets: import it under that name")
