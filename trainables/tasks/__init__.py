"""One file per task; each has a `Config` and a `build(config) -> Task`."""
