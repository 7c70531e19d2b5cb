"""Fits of typed tables: the discrete states first, then the flow over the numbers, then the
imputer."""
