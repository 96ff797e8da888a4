"""Edge models enter; their size, latency, memory and agreement leave."""
