"""Models made on the spot, a load generator, and the runs behind `make demo` and `make bench`."""
