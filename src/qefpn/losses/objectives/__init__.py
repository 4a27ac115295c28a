"""One module an objective; every module here is imported when the registry is first read."""
