//! The findings of an attack on kport: each test failed before its finding was fixed.

mod any_address;
mod before_the_jail_is_there;
mod callers;
mod dead_from_the_start;
mod jails_that_are_gone;
mod leftovers;
mod nobody_listens;
mod out_of_time_after_the_load;
mod overlaps_that_come_later;
mod read_only;
mod states_that_end;
mod the_lock_and_forks;
mod two_jails_on_one_address;
mod what_gc_cannot_read;
mod who_decides_the_target;
mod work_under_the_lock;
