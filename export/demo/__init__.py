"""An edge model enters, a static page that classifies photographs leaves."""
