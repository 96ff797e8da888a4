"""A section of the report each: the report's content enters, plots, tables and pictures leave."""
