"""Parts that several units share."""
