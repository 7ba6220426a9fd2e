/*
 * kport: publish ports of FreeBSD jails through pf(4). See kport(3) for the
 * whole, kport(8) for the command and for what pf.conf(5) needs.
 *
 * This file is generated from src/ffi.rs; do not edit it. Renew it with:
 * KPORT_BLESS=1 cargo test --test suite header
 *
 * Ownership. What is passed in is copied, and need not outlive the call. On
 * success *out is a new object of the caller's; on failure it is NULL. On
 * failure *err is a new object of the caller's; on success it is NULL. Both
 * are written in any case and never read, so they need not be initialised,
 * and what they held must be freed before. err may be NULL. Each type has one
 * function that frees it, which takes NULL; never use free(3). A text that is
 * returned belongs to the object that it was asked of, and dies with it.
 *
 * Strings are NUL-terminated UTF-8 of at most 65536 bytes (a path: 1024, the
 * text of specs: 1048576); anything else is KPORT_ERR_ARGUMENT. What comes
 * back is one line without control characters; kport_ruleset_text() has a
 * line for each rule.
 *
 * Pointers to objects and to variables may be NULL in every call: what cannot
 * be done without them fails with KPORT_ERR_ARGUMENT, and what only looks at
 * an object answers as its page says.
 *
 * Threads. Every function may be called from any thread at any time, also in
 * the child of a fork(2). Objects never change: threads may share one, as long
 * as the one that frees it is the last to use it. There is no "last error",
 * and nothing to initialise.
 *
 * Processes. Changes are serialised by a lock file, host-wide; a call waits
 * for it no longer than its time-out. The library prints nothing, never
 * exits, and leaves signals, working directory, locale and environment alone.
 * Its descriptors are close-on-exec, whether 0, 1 and 2 are open or not. The
 * backend "pfctl" starts one child at a time and waits for that one only; a
 * host may ignore SIGCHLD. A defect in kport is KPORT_ERR_INTERNAL, not the
 * end of the process.
 *
 * Growth. Functions, statuses, flags, and fields at the end of a struct may
 * be added; names, numbers and argument lists never change. A struct is
 * passed with its size, so a program built with an older header keeps
 * working, and one built with a newer header does as long as the fields and
 * flags that the library does not know are 0; else it gets
 * KPORT_ERR_UNSUPPORTED.
 */

#ifndef KPORT_H
#define KPORT_H

#include <stddef.h>
#include <stdint.h>

#define KPORT_VERSION "0.1.0"
#define KPORT_VERSION_MAJOR 0
#define KPORT_VERSION_MINOR 1
#define KPORT_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
#define KPORT_MUST_USE __attribute__((warn_unused_result))
#else
#define KPORT_MUST_USE
#endif

/**
 * What every struct kport_options starts from.
 */
#define KPORT_OPTIONS_INIT { sizeof(struct kport_options), \
	NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
	0, 0 }

/**
 * Publish although a socket of the host, or another tool's redirect, has the
 * port. Other jails' ports are refused all the same.
 */
#define KPORT_FORCE 1

/**
 * Publish although pf would not evaluate the rules for now.
 */
#define KPORT_ALLOW_INERT 2

/**
 * The jails of the reach list, those on the jail's own bridge among them,
 * reach the published port at the host's address, too.
 */
#define KPORT_HAIRPIN 4

/**
 * The host itself, and the jails that share its network stack, reach the
 * published port, at the host's address and at 127.0.0.1 or ::1.
 */
#define KPORT_HOST_ACCESS 8

/**
 * Log the packet that starts a connection to pflog0.
 */
#define KPORT_LOG 16

/**
 * Let the rules behind kport's anchor decide, too: pass without quick.
 */
#define KPORT_NO_QUICK 32

/**
 * Add to what the jail has published, instead of taking its place. Each
 * call's options are those of its mappings.
 */
#define KPORT_ADD 64

/**
 * What a call returns: KPORT_OK or why it failed, sorted by what the caller
 * can do about it. The numbers never change, and are the exit statuses of
 * kport(8).
 */
enum kport_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif /* defined(__cplusplus) || __STDC_VERSION__ >= 202311L */
 {
	/**
	 * Done.
	 */
	KPORT_OK = 0,
	/**
	 * An argument is NULL, too long, or not UTF-8: a mistake in the caller.
	 */
	KPORT_ERR_ARGUMENT = 1,
	/**
	 * The text does not follow the grammar; see kport_error_offset().
	 */
	KPORT_ERR_SPEC = 2,
	/**
	 * A port is held by another jail, by the host, or by another tool.
	 */
	KPORT_ERR_CONFLICT = 3,
	/**
	 * The process may not change the firewall or the record.
	 */
	KPORT_ERR_PERMISSION = 4,
	/**
	 * pf is off or absent, or would not evaluate the rules, or a fact about
	 * the host or the jail is missing.
	 */
	KPORT_ERR_UNAVAILABLE = 5,
	/**
	 * The lock or pf stayed busy until the time-out: try again.
	 */
	KPORT_ERR_BUSY = 6,
	/**
	 * A system call or pfctl(8) failed; see kport_error_errno().
	 */
	KPORT_ERR_SYSTEM = 7,
	/**
	 * Not possible for this jail, or not known to this version.
	 */
	KPORT_ERR_UNSUPPORTED = 8,
	/**
	 * A defect in kport.
	 */
	KPORT_ERR_INTERNAL = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kport_status kport_status;
#else
typedef int32_t kport_status;
#endif /* __STDC_VERSION__ >= 202311L */
#endif /* __cplusplus */

/**
 * Whether pf has what is recorded: the field state of struct kport_entry.
 */
enum kport_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif /* defined(__cplusplus) || __STDC_VERSION__ >= 202311L */
 {
	/**
	 * pf has what the record says.
	 */
	KPORT_LIVE = 1,
	/**
	 * Recorded, but not, or not all, in pf: kport_restore() loads it.
	 */
	KPORT_MISSING = 2,
	/**
	 * In pf, but not recorded: kport_gc() removes it.
	 */
	KPORT_STALE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum kport_state kport_state;
#else
typedef int32_t kport_state;
#endif /* __STDC_VERSION__ >= 202311L */
#endif /* __cplusplus */

/**
 * Why a call failed. Never changes: threads may share it for reading.
 */
struct kport_error;

/**
 * A snapshot of what is published. Never changes: threads may share it for
 * reading.
 */
struct kport_listing;

/**
 * What a call has changed, and what its caller should hear. Never changes:
 * threads may share it for reading.
 */
struct kport_outcome;

/**
 * The rules of a publication. Never changes: threads may share it for reading.
 */
struct kport_ruleset;

/**
 * Port specs, parsed. Never changes: threads may share it for reading.
 */
struct kport_spec;

/**
 * How to publish. Zero in a field means: the default. Start from
 * KPORT_OPTIONS_INIT, which sets size; the library copies what it needs.
 * Lists are texts with white space between the items. A call looks at the
 * fields that concern it, but refuses bad values in any.
 */
struct kport_options {
	/**
	 * sizeof(struct kport_options) of the caller.
	 */
	size_t size;
	/**
	 * "auto" (the default): on FreeBSD /dev/pf where the kernel has all that it
	 * takes, else pfctl(8); where there is no pf, "sim". "native": /dev/pf, no
	 * child process. "pfctl": pfctl(8). "sim": files, nothing is redirected.
	 * One that is named is never replaced by another.
	 */
	const char *backend;
	/**
	 * Where the lock and the record are; default: /var/run/kport.
	 */
	const char *state_dir;
	/**
	 * The jail's addresses, one for each network that it is connected to, the
	 * preferred one first; default: the kernel is asked. "inherit": the jail
	 * is on the host's network (nothing can be published then).
	 */
	const char *addresses;
	/**
	 * The gateway interface; default: that of the default route.
	 */
	const char *gateway;
	/**
	 * Interfaces and groups whose hosts reach the jail's own address and
	 * port; default: "bridge epair lo". "": none.
	 */
	const char *reach;
	/**
	 * Who may use the ports from outside: networks, addresses and tables, as
	 * in "192.0.2.0/24 2001:db8::1 <trusted>"; default: everybody. "" is
	 * refused.
	 */
	const char *sources;
	/**
	 * Where a call that changes something puts what it did, which
	 * kport_outcome_free() frees: *outcome is a new object on success, and
	 * NULL on failure. Like *err it is written in any case (but for a bad
	 * size) and never read, so what it held must be freed before, and threads
	 * that share options have NULL here; default: nobody wants to know.
	 */
	struct kport_outcome **outcome;
	/**
	 * How long a call may take, in milliseconds; default: 60000.
	 */
	uint32_t timeout_ms;
	/**
	 * KPORT_FORCE and the like, or-ed.
	 */
	uint32_t flags;
	/**
	 * The most connections at a time through a mapping; default: no bound.
	 */
	uint32_t max_connections;
	/**
	 * The most of them from one address; default: no bound.
	 */
	uint32_t max_connections_per_source;
	/**
	 * The most new connections from one address in rate_seconds, tcp only.
	 * Both or neither are set; default: no bound.
	 */
	uint32_t rate_connections;
	/**
	 * See rate_connections.
	 */
	uint32_t rate_seconds;
	/**
	 * The jail's number, so that a late stop hook of an earlier start cannot
	 * undo a later one; default: the kernel is asked, or it does not matter.
	 */
	int32_t jid;
	/**
	 * The lowest and the highest of the ports of which one is chosen for
	 * "auto"; default: 49152 and 65535. Both or neither are set.
	 */
	uint16_t auto_first;
	/**
	 * See auto_first.
	 */
	uint16_t auto_last;
	/**
	 * How long kport_publish() waits for the jail to have an address, as one
	 * that asks DHCP for it, in milliseconds; it comes on top of timeout_ms;
	 * default: not at all.
	 */
	uint32_t wait_ms;
	/**
	 * 0.
	 */
	uint32_t reserved;
};

/**
 * One mapping of a spec. Pointers live as long as the spec.
 */
struct kport_mapping {
	/**
	 * "em0", "192.0.2.1", "[2001:db8::1]" or "*"; NULL: the interface of the
	 * host's default route.
	 */
	const char *place;
	/**
	 * The first port on the host; 0: a free one is chosen.
	 */
	uint16_t host_port;
	/**
	 * The first port in the jail.
	 */
	uint16_t jail_port;
	/**
	 * How many ports in a row, on both sides.
	 */
	uint16_t count;
	/**
	 * IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	 */
	uint8_t protocol;
	/**
	 * 0.
	 */
	uint8_t reserved;
};

/**
 * One published redirect, or a jail of which none is known. Pointers live as
 * long as the listing or outcome.
 */
struct kport_entry {
	/**
	 * The jail; NULL where no record tells whose anchor it is, and in the
	 * outcome of a call for all jails.
	 */
	const char *jail;
	/**
	 * The anchor in pf, "kport/web"; NULL in the outcome of a call for all
	 * jails.
	 */
	const char *anchor;
	/**
	 * Where on the host, as in struct kport_mapping; NULL if count is 0.
	 */
	const char *place;
	/**
	 * The address in the jail; NULL if count is 0.
	 */
	const char *address;
	/**
	 * Packets that the rules have passed since they were loaded, both ways.
	 */
	uint64_t packets;
	/**
	 * Bytes of these packets.
	 */
	uint64_t bytes;
	/**
	 * States (connections) that the rules have made.
	 */
	uint64_t states;
	/**
	 * When it was published, in seconds since 1970; 0: unknown.
	 */
	int64_t since;
	/**
	 * The jail's number when it was published; 0: unknown.
	 */
	int32_t jid;
	/**
	 * One of enum kport_state.
	 */
	int32_t state;
	/**
	 * The first port on the host.
	 */
	uint16_t host_port;
	/**
	 * The first port in the jail.
	 */
	uint16_t jail_port;
	/**
	 * How many ports in a row; 0: no redirect is known of this anchor.
	 */
	uint16_t count;
	/**
	 * IPPROTO_TCP, IPPROTO_UDP or IPPROTO_SCTP.
	 */
	uint8_t protocol;
	/**
	 * 4 or 6.
	 */
	uint8_t family;
};

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/**
 * Reads port specs, such as "8080:80/udp em1:443:8443".
 *
 * On success *out is a new spec, to be freed with kport_spec_free(); on
 * failure it is NULL. Fails with KPORT_ERR_SPEC, and then
 * kport_error_offset() tells where; with KPORT_ERR_ARGUMENT if text or out
 * is NULL, or text is too long or not UTF-8. Touches nothing outside the
 * process.
 */
KPORT_MUST_USE
kport_status kport_parse(const char *text,
			 struct kport_spec **out,
			 struct kport_error **err);

/**
 * Reads ports as Kleene records them: a PublishedPort of Kleened's API, or a
 * list of them, as JSON.
 *
 * The spec holds the addresses of the records as well: kport_publish() takes
 * them where options->addresses is NULL. On success *out is a new spec, to be
 * freed with kport_spec_free(); on failure it is NULL. Fails with
 * KPORT_ERR_SPEC for ports that cannot be published, such as a range from
 * high to low or ranges of different lengths, and with KPORT_ERR_ARGUMENT
 * for what is no record; the message names the record. Touches nothing
 * outside the process.
 */
KPORT_MUST_USE
kport_status kport_parse_kleene(const char *json,
				struct kport_spec **out,
				struct kport_error **err);

/**
 * Publishes all mappings of a spec for a jail, in place of what the jail had
 * published: all of them or, on any failure, none, and what was there stays.
 * The same again changes nothing and succeeds.
 *
 * The spec stays the caller's. options may be NULL. Fails with
 * KPORT_ERR_CONFLICT if somebody else has one of the ports,
 * KPORT_ERR_UNAVAILABLE if pf would not evaluate the rules or the jail's
 * address is unknown, KPORT_ERR_UNSUPPORTED if the jail is on the host's
 * network, KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
 * KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_publish(const char *jail,
			   const struct kport_spec *spec,
			   const struct kport_options *options,
			   struct kport_error **err);

/**
 * Removes everything that a jail has published, and ends the connections that
 * went through it. Nothing published is success.
 *
 * With options->jid, what a later start of the jail has published stays.
 * options may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_BUSY,
 * KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT; as much as possible is removed all
 * the same, and the call can be repeated.
 */
KPORT_MUST_USE
kport_status kport_unpublish(const char *jail,
			     const struct kport_options *options,
			     struct kport_error **err);

/**
 * Removes these of the mappings that a jail has published, and ends the
 * connections that went through them. The others stay.
 *
 * A mapping that names no place is that of the host's default route, "auto"
 * is any host port, and one that is not published is no error. With
 * options->jid, what a later start of the jail has published stays. options
 * may be NULL. Fails as kport_unpublish() does, and with
 * KPORT_ERR_UNAVAILABLE if pf is not there to load the others.
 */
KPORT_MUST_USE
kport_status kport_unpublish_some(const char *jail,
				  const struct kport_spec *spec,
				  const struct kport_options *options,
				  struct kport_error **err);

/**
 * Lists what is published by a jail, or by all if jail is NULL: a row for
 * each redirect, sorted by anchor.
 *
 * On success *out is a new listing, to be freed with kport_listing_free();
 * on failure it is NULL. Nothing published is success, with no rows. options
 * may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_UNAVAILABLE,
 * KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_list(const char *jail,
			const struct kport_options *options,
			struct kport_listing **out,
			struct kport_error **err);

/**
 * Loads again what is recorded and was lost from pf, for all jails, as after
 * "pfctl -F all". What pf has is not touched.
 *
 * options may be NULL. Fails with KPORT_ERR_UNAVAILABLE if pf is not there,
 * KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
 * KPORT_ERR_ARGUMENT; one jail's failure does not stop the others, and the
 * call can be repeated.
 */
KPORT_MUST_USE
kport_status kport_restore(const struct kport_options *options,
			   struct kport_error **err);

/**
 * Removes what belongs to jails that are gone, and anchors of kport's that no
 * record knows.
 *
 * options may be NULL. Fails as kport_restore() does.
 */
KPORT_MUST_USE
kport_status kport_gc(const struct kport_options *options,
		      struct kport_error **err);

/**
 * Makes the rules that kport_publish() would load, as pf.conf(5) text. Nothing
 * is loaded, and neither pf nor the record is asked.
 *
 * On success *out is a new object, to be freed with kport_ruleset_free(); on
 * failure it is NULL. Fails with KPORT_ERR_UNAVAILABLE if options->addresses
 * is NULL, or if a mapping names no place and the host has no default route;
 * with KPORT_ERR_UNSUPPORTED for a host port "auto", or if the jail is on the
 * host's network; with KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_rules(const char *jail,
			 const struct kport_spec *spec,
			 const struct kport_options *options,
			 struct kport_ruleset **out,
			 struct kport_error **err);

/**
 * The spec written out: every field, one mapping for each protocol. The text
 * lives as long as the spec. NULL for NULL.
 */
const char *kport_spec_text(const struct kport_spec *spec);

/**
 * The number of mappings. 0 for NULL.
 */
size_t kport_spec_len(const struct kport_spec *spec);

/**
 * Fills in a mapping; size is sizeof(struct kport_mapping) of the caller.
 * i counts from 0. Fails with KPORT_ERR_ARGUMENT, and leaves *out as it was,
 * if there is no mapping i, or spec or out is NULL, or size is 0.
 */
KPORT_MUST_USE
kport_status kport_spec_get(const struct kport_spec *spec,
			    size_t i,
			    struct kport_mapping *out,
			    size_t size);

/**
 * Frees a spec. NULL is fine.
 */
void kport_spec_free(struct kport_spec *spec);

/**
 * The number of rows. 0 for NULL.
 */
size_t kport_listing_len(const struct kport_listing *listing);

/**
 * Fills in a row; size is sizeof(struct kport_entry) of the caller. i counts
 * from 0. Fails with KPORT_ERR_ARGUMENT, and leaves *out as it was, if there
 * is no row i, or listing or out is NULL, or size is 0.
 */
KPORT_MUST_USE
kport_status kport_listing_get(const struct kport_listing *listing,
			       size_t i,
			       struct kport_entry *out,
			       size_t size);

/**
 * Frees a listing. NULL is fine.
 */
void kport_listing_free(struct kport_listing *listing);

/**
 * 1 if the call has changed pf, 0 if all was as it should be. 0 for NULL.
 */
int kport_outcome_changed(const struct kport_outcome *outcome);

/**
 * How many connections (states of pf) the call has ended. 0 for NULL.
 */
uint64_t kport_outcome_ended(const struct kport_outcome *outcome);

/**
 * The number of notes. 0 for NULL.
 */
size_t kport_outcome_notes(const struct kport_outcome *outcome);

/**
 * A note, counted from 0: what the call did not fail for, but an admin should
 * hear, such as a conflict that was forced, connections that live on, or a
 * record that was damaged. One line without a newline, as kport(8) prints it;
 * it lives as long as the outcome. NULL if there is no note i.
 */
const char *kport_outcome_note(const struct kport_outcome *outcome, size_t i);

/**
 * The number of rows. 0 for NULL.
 */
size_t kport_outcome_len(const struct kport_outcome *outcome);

/**
 * Fills in a row of what is published now, with the port that was chosen for
 * "auto"; size is sizeof(struct kport_entry) of the caller. i counts from 0.
 * Counters, since and jid are 0. Fails as kport_listing_get() does.
 */
KPORT_MUST_USE
kport_status kport_outcome_get(const struct kport_outcome *outcome,
			       size_t i,
			       struct kport_entry *out,
			       size_t size);

/**
 * Frees an outcome. NULL is fine.
 */
void kport_outcome_free(struct kport_outcome *outcome);

/**
 * The rules, a line for each, as pfctl(8) would read them. The text lives as
 * long as the object. NULL for NULL.
 */
const char *kport_ruleset_text(const struct kport_ruleset *ruleset);

/**
 * Frees the rules. NULL is fine.
 */
void kport_ruleset_free(struct kport_ruleset *ruleset);

/**
 * The status that the failed call returned. KPORT_OK for NULL.
 */
kport_status kport_error_status(const struct kport_error *error);

/**
 * What was seen and what to do, on one line without a newline. The text lives
 * as long as the error. "" for NULL.
 */
const char *kport_error_message(const struct kport_error *error);

/**
 * The errno of the system call that failed. 0: none did. 0 for NULL.
 */
int kport_error_errno(const struct kport_error *error);

/**
 * The offset, in bytes from 0, of what was wrong in the text given to
 * kport_parse(), or in the text of options that the message names. SIZE_MAX:
 * the error is not about a place in a text. SIZE_MAX for NULL.
 */
size_t kport_error_offset(const struct kport_error *error);

/**
 * Frees an error. NULL is fine.
 */
void kport_error_free(struct kport_error *error);

/**
 * A few words for a status, or for any other number. Never NULL, never freed.
 */
const char *kport_status_text(int32_t status);

/**
 * The version of the running library, "0.1.0"; KPORT_VERSION is that of the
 * header. Never NULL, never freed.
 */
const char *kport_version(void);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* KPORT_H */
