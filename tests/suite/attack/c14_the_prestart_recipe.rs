//! C14: late unpublish, gc before the jail exists, add after a restart, a renamed jail.
