#!/usr/bin/env python3
"""kport from Python, through ctypes, as iocage could call it.

    ./kport.py web 10.0.0.2 em0:8080:80 em0:5353:53/udp
"""
import ctypes
import os
import sys
from ctypes import (POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_size_t, c_uint8, c_uint16, c_uint32,
                    c_uint64, c_void_p, pointer, sizeof)


class Options(Structure):
    """struct kport_options; Options(sizeof(Options)) is KPORT_OPTIONS_INIT."""
    _fields_ = [("size", c_size_t), ("backend", c_char_p), ("state_dir", c_char_p), ("addresses", c_char_p),
                ("gateway", c_char_p), ("reach", c_char_p), ("sources", c_char_p), ("outcome", POINTER(c_void_p)),
                ("timeout_ms", c_uint32), ("flags", c_uint32), ("max_connections", c_uint32),
                ("max_connections_per_source", c_uint32), ("rate_connections", c_uint32), ("rate_seconds", c_uint32),
                ("jid", c_int32), ("auto_first", c_uint16), ("auto_last", c_uint16), ("wait_ms", c_uint32),
                ("reserved", c_uint32), ("reply_to", c_char_p), ("trust", c_char_p), ("families", c_char_p)]


class Entry(Structure):
    """struct kport_entry"""
    _fields_ = [("jail", c_char_p), ("anchor", c_char_p), ("place", c_char_p), ("address", c_char_p),
                ("packets", c_uint64), ("bytes", c_uint64), ("states", c_uint64), ("since", c_int64),
                ("jid", c_int32), ("state", c_int32), ("host_port", c_uint16), ("jail_port", c_uint16),
                ("count", c_uint16), ("protocol", c_uint8), ("family", c_uint8)]


class KportError(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


lib = ctypes.CDLL(os.environ.get("KPORT_LIBRARY", "libkport.so.0.1"))
Handle = POINTER(c_void_p)
for name, result, *arguments in [
        ("kport_parse", c_int32, c_char_p, Handle, Handle),
        ("kport_publish", c_int32, c_char_p, c_void_p, POINTER(Options), Handle),
        ("kport_unpublish", c_int32, c_char_p, POINTER(Options), Handle),
        ("kport_list", c_int32, c_char_p, POINTER(Options), Handle, Handle),
        ("kport_spec_text", c_char_p, c_void_p),
        ("kport_spec_free", None, c_void_p),
        ("kport_listing_len", c_size_t, c_void_p),
        ("kport_listing_get", c_int32, c_void_p, c_size_t, POINTER(Entry), c_size_t),
        ("kport_listing_free", None, c_void_p),
        ("kport_outcome_notes", c_size_t, c_void_p),
        ("kport_outcome_note", c_char_p, c_void_p, c_size_t),
        ("kport_outcome_free", None, c_void_p),
        ("kport_error_message", c_char_p, c_void_p),
        ("kport_error_free", None, c_void_p)]:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments


def call(function, *arguments):
    """Calls a function whose last argument is err; raises KportError if it fails."""
    error = c_void_p()
    status = function(*arguments, byref(error))
    if status != 0:
        message = lib.kport_error_message(error).decode()
        lib.kport_error_free(error)
        raise KportError(status, message)


def change(function, *arguments, options):
    """Calls a function that changes something, and returns its notes."""
    outcome = c_void_p()
    options.outcome = pointer(outcome)
    try:
        call(function, *arguments, byref(options))
        return [lib.kport_outcome_note(outcome, i).decode() for i in range(lib.kport_outcome_notes(outcome))]
    finally:
        options.outcome = None
        lib.kport_outcome_free(outcome)


def publish(jail, specs, options):
    """Publishes, and returns the specs with every field, and the notes."""
    spec = c_void_p()
    call(lib.kport_parse, specs.encode(), byref(spec))
    try:
        notes = change(lib.kport_publish, jail.encode(), spec, options=options)
        return lib.kport_spec_text(spec).decode(), notes
    finally:
        lib.kport_spec_free(spec)


def unpublish(jail, options):
    return change(lib.kport_unpublish, jail.encode(), options=options)


def listing(options):
    """Yields (jail, place, host port, address, jail port) of every redirect."""
    rows, entry = c_void_p(), Entry()
    call(lib.kport_list, None, byref(options), byref(rows))
    try:
        for i in range(lib.kport_listing_len(rows)):
            if lib.kport_listing_get(rows, i, byref(entry), sizeof(entry)) == 0 and entry.jail and entry.count:
                yield (entry.jail.decode(), entry.place.decode(), entry.host_port, entry.address.decode(),
                       entry.jail_port)
    finally:
        lib.kport_listing_free(rows)


def main(jail, address, *specs):
    options = Options(sizeof(Options), addresses=address.encode())
    for field in "backend", "state_dir":
        value = os.environ.get("KPORT_" + field.upper())
        setattr(options, field, value.encode() if value else None)
    try:
        text, notes = publish(jail, " ".join(specs), options)
        print("published", text)
        for row in listing(options):
            print(*row)
        notes += unpublish(jail, options)
        print("left:", list(listing(options)))
        print("notes:", *notes, sep="\n\t")
    except KportError as error:
        print("kport.py:", error, file=sys.stderr)
        return error.status
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: kport.py JAIL ADDRESS SPEC...")
    sys.exit(main(*sys.argv[1:]))
