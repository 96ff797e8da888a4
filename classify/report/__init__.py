"""What training found enters, one HTML file leaves that opens without a network."""
