"""What a plug-in author needs: the contracts of a data set and of a storage backend."""
