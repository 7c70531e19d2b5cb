"""Questions about a fitted density: some columns given others, or their marginals."""
