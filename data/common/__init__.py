"""What every room uses: errors, the console, memory, intervals, Ray sessions."""
