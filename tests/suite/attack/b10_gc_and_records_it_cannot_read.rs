//! B10: gc unpublishes running jails whose record it cannot read.
