"""The sections of the report: each one function, from results and ranking to a Section or None (nothing to show)."""
