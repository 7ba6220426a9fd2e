//! B8: a jail whose states take longer to end than the time-out.
