"""Fitting typed tables: discrete states first, then the flow over the numbers, then the
imputer."""
