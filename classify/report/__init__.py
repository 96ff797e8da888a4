"""The results of training go in; one HTML file comes out that needs no network."""
