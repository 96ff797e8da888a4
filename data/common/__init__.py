"""What every room needs and none owns: errors, the console, memory, intervals, Ray sessions."""
