"""One module an edge filter; every module here is imported when the registry is first read."""
