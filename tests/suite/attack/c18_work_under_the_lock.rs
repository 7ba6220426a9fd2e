//! C18: cost under the lock.
