"""Reading of millions of images: shards of inputs, one Parquet file for each, on one process, several, or Ray."""
