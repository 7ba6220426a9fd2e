//! B5: a publish that runs out of time after its load.
