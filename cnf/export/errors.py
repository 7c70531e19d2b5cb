"""What stands in the way of an export."""


class ExportError(ValueError):
    """A model that is no fixed list of products: what it is, and what to do."""
