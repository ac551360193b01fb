"""Convert label files and images to prepared parquet files. The scripts of ``data_prep/`` build on this."""
