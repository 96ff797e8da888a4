"""The sections of the report: its content goes in; plots, tables and pictures come out."""
