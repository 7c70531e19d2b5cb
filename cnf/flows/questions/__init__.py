"""What is asked of a fitted density: some columns given others, or whatever those are."""
