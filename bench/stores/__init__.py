"""A data set becomes stores: what a source delivers, found out once; written, read back, verified, kept, removed."""
