"""What must be seen working in a real browser; `make test-browser`."""
