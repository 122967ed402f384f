"""What the studio is measured against: the published utilities as they are on the package index, and, of what is not
there, restatements that are proven equal on recorded figures (tests/bench_speed)."""
