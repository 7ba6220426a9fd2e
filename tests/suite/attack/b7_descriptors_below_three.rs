//! B7: a host that closed descriptors 0 to 2.
