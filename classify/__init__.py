"""Features enter, a trained head, its scores and its answers leave."""
