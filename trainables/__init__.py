"""How a candidate is trained and a sweep is run: the only folder that knows both torch and Ray."""
