//! The findings of an attack on kport, each with the test that failed before it was closed. One module a finding, named after its
//! number in the list of the attack.

mod a1_who_decides_the_target;
mod a2_two_jails_on_one_address;
mod a3_what_decides_silently;
mod a4_a_nested_jail_with_an_odd_name;
mod b10_gc_and_records_it_cannot_read;
mod b11_sigchld_ignored;
mod b5_out_of_time_after_the_load;
mod b6_the_lock_and_forks;
mod b7_descriptors_below_three;
mod b8_states_that_take_long_to_end;
mod b9_narrowing;
mod c12_dead_from_the_start;
mod c13_overlaps_that_come_later;
mod c14_the_prestart_recipe;
mod c15_notes_for_c;
mod c16_read_only;
mod c17_nobody_listens;
mod c18_work_under_the_lock;
mod c19_leftovers;
