"""From label files and images to prepared parquet files: everything that the scripts of ``data_prep/`` are built on."""
