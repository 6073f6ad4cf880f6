"""The HTTP face (DESIGN section 10): routes, the guard in front of them, and the server under them."""
