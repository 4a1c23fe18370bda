"""A network, a loss and an augmentation that Focalis finds by their entry points."""
