"""Models made on the spot, loads, systems and scenarios, and what is measured with them."""
