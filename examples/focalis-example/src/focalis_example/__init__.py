"""A network and a loss that Focalis finds by their entry points."""
