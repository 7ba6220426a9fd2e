//! B6: the lock leaks into children that the host forks.
