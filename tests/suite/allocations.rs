//! Parsing without allocations. This is a separate program, because the allocator that counts is that of the whole program.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kport::spec::{self, Spec};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `act` returns, and how often it has allocated.
fn counted<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let value = act();
    (value, ALLOCATIONS.get() - before)
}

#[test]
fn a_spec_of_up_to_eight_mappings_is_parsed_without_an_allocation() {
    for text in [
        "8080",
        "8080:80/udp",
        "em1:8080:80",
        "8000-8010:9000-9010",
        "[2001:db8::1]:8000-8010:9000/tcp,udp",
        "192.0.2.1:auto:80 *:443:443/tcp,udp,sctp",
        " 1 2 3 4 5 6 7 8 ",
        "1/tcp,udp 2/tcp,udp 3/tcp,udp 4/tcp,udp",
    ] {
        let (parsed, allocations) = counted(|| spec::parse(text));
        let spec = parsed.unwrap();
        assert!(spec.mappings().len() <= Spec::INLINE);
        assert_eq!(allocations, 0, "{text}");
    }
}

#[test]
fn more_mappings_are_the_same_in_one_allocation_for_each_doubling() {
    for count in [9, 31, 32, 33, 1000] {
        let text: String = (1..=count).map(|port| format!("{port} ")).collect();
        let (parsed, allocations) = counted(|| spec::parse(&text));
        let spec = parsed.unwrap();
        assert!((1..=6).contains(&allocations), "{count}: {allocations}");
        let ports: Vec<u16> = spec.mappings().iter().map(|mapping| mapping.jail.first()).collect();
        assert_eq!(ports, (1..=count).collect::<Vec<_>>());
        assert_eq!(spec::parse(&spec.to_string()), Ok(spec));
    }
}
