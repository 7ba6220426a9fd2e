//! B9: narrowing a publication ends the connections that it no longer allows.
