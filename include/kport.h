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
 * the child of a fork(2). Objects never change, except a kport_watch, which
 * one thread may use at a time: threads may share one, as long as the one that
 * frees it is the last to use it. There is no "last error",
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
	0, 0, NULL, NULL, NULL }

/**
 * Publish even if a socket of the host or another tool's redirect has the
 * port. A port of another jail is still a conflict.
 */
#define KPORT_FORCE 1

/**
 * Publish even if pf does not evaluate the rules at present.
 */
#define KPORT_ALLOW_INERT 2

/**
 * Let the hosts of the reach list, including jails on the jail's own bridge,
 * also use the published port at the host's address.
 */
#define KPORT_HAIRPIN 4

/**
 * Let the host itself, and the jails that share its network stack, use the
 * published port, at the host's address and at 127.0.0.1 or ::1.
 */
#define KPORT_HOST_ACCESS 8

/**
 * Log the first packet of each connection to pflog0.
 */
#define KPORT_LOG 16

/**
 * Do not use quick: rules after kport's anchor can still block the traffic.
 */
#define KPORT_NO_QUICK 32

/**
 * Add to the ports that the jail has published, instead of replacing them. The
 * options of a call apply to its mappings.
 */
#define KPORT_ADD 64

/**
 * The name is not that of a jail, but of another target: a guest of bhyve(8),
 * a host of the LAN. Needs addresses, and no jid. kport_gc() leaves it alone.
 */
#define KPORT_NO_JAIL 128

/**
 * Let IPv6 clients use the ports of a jail that has an IPv4 address only: pf
 * of FreeBSD 15 translates the packets.
 */
#define KPORT_AF_TO 512

/**
 * Replace the source of every connection to the ports with an address of the
 * interface that leads to the jail, so that the answers return through the
 * host whatever the jail's default route is.
 */
#define KPORT_MASQUERADE 256

/**
 * For kport_list(): count the packets, bytes and states of each mapping, which
 * reads each rule. Other calls ignore it.
 */
#define KPORT_COUNTERS 1024

/**
 * The status that a call returns: KPORT_OK or the kind of failure, by what the
 * caller can do about it. The numbers never change, and are the exit statuses
 * of kport(8).
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
	 * The string does not follow the grammar; see kport_error_offset().
	 */
	KPORT_ERR_SPEC = 2,
	/**
	 * A port is used by another jail, by the host, or by another tool.
	 */
	KPORT_ERR_CONFLICT = 3,
	/**
	 * The process may not change the firewall or the records.
	 */
	KPORT_ERR_PERMISSION = 4,
	/**
	 * pf is disabled or missing, or does not evaluate the rules, or a property
	 * of the host or the jail is unknown.
	 */
	KPORT_ERR_UNAVAILABLE = 5,
	/**
	 * The lock or pf was busy until the time-out: try again.
	 */
	KPORT_ERR_BUSY = 6,
	/**
	 * A system call or pfctl(8) failed; see kport_error_errno().
	 */
	KPORT_ERR_SYSTEM = 7,
	/**
	 * Not possible for this jail, or unknown to this version.
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
	 * pf has what is recorded, and evaluates it.
	 */
	KPORT_LIVE = 1,
	/**
	 * Recorded, but missing or incomplete in pf: kport_restore() loads it.
	 */
	KPORT_MISSING = 2,
	/**
	 * In pf, but not recorded: kport_gc() removes it.
	 */
	KPORT_STALE = 3,
	/**
	 * pf has what is recorded, but is disabled, or its main ruleset does not
	 * call kport's anchors.
	 */
	KPORT_INERT = 4,
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
 * The outcome of a change, with notes for the administrator. Never changes:
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
 * Keeps what is published true: kport watch of kport(8), in the program's own
 * event loop. One thread may use it at a time.
 */
struct kport_watch;

/**
 * Settings of a call. Zero in a field selects the default. Start from
 * KPORT_OPTIONS_INIT, which sets size; the library copies what it needs.
 * Lists are strings with white space between the items. A call uses only the
 * fields that concern it, but an invalid value in any field is an error.
 */
struct kport_options {
	/**
	 * sizeof(struct kport_options) of the caller.
	 */
	size_t size;
	/**
	 * "auto" (the default): on FreeBSD /dev/pf if the kernel has all that is
	 * needed, else pfctl(8); "sim" if the system has no pf. "native": /dev/pf,
	 * without child processes. "pfctl": pfctl(8). "sim": files, nothing is
	 * redirected. A named backend is never replaced with another.
	 */
	const char *backend;
	/**
	 * The directory of the lock and the records; default: /var/run/kport.
	 */
	const char *state_dir;
	/**
	 * The jail's addresses, one for each network, the preferred one first;
	 * default: read from the kernel. "inherit": the jail uses the host's
	 * network (then nothing can be published).
	 */
	const char *addresses;
	/**
	 * The gateway interface; default: that of the default route.
	 */
	const char *gateway;
	/**
	 * The reach list: interfaces and groups whose hosts may use the jail's own
	 * address and port; default: "bridge epair lo". "": none.
	 */
	const char *reach;
	/**
	 * The sources that may use the ports from outside: networks, addresses and
	 * tables, as in "192.0.2.0/24 2001:db8::1 <trusted>"; default: all. "" is
	 * an error.
	 */
	const char *sources;
	/**
	 * A variable for the outcome of a call that changes something: *outcome is
	 * a new object on success, to be freed with kport_outcome_free(), and NULL
	 * on failure. Like *err it is always written (except for a bad size) and
	 * never read, so free an old object before the call, and set NULL in
	 * options that threads share; default: the outcome is discarded.
	 */
	struct kport_outcome **outcome;
	/**
	 * The maximum time of a call, in milliseconds; default: 60000.
	 */
	uint32_t timeout_ms;
	/**
	 * The bitwise OR of KPORT_FORCE and the other flags.
	 */
	uint32_t flags;
	/**
	 * The maximum number of connections of a mapping at once; default: no
	 * limit.
	 */
	uint32_t max_connections;
	/**
	 * The maximum number of these from one address; default: no limit.
	 */
	uint32_t max_connections_per_source;
	/**
	 * The maximum number of new connections from one address in rate_seconds,
	 * tcp only. Set both or neither; default: no limit.
	 */
	uint32_t rate_connections;
	/**
	 * See rate_connections.
	 */
	uint32_t rate_seconds;
	/**
	 * The jid, so that a late stop hook of an earlier start cannot undo a later
	 * one; default: read from the kernel to publish, any jid to unpublish.
	 */
	int32_t jid;
	/**
	 * The lowest and the highest port of the range from which "auto" chooses;
	 * default: 49152 and 65535. Set both or neither.
	 */
	uint16_t auto_first;
	/**
	 * See auto_first.
	 */
	uint16_t auto_last;
	/**
	 * The maximum time that kport_publish() waits until the jail has an address
	 * (DHCP, SLAAC), in milliseconds; added to timeout_ms; default: does not
	 * wait.
	 */
	uint32_t wait_ms;
	/**
	 * 0.
	 */
	uint32_t reserved;
	/**
	 * The routers through which connections are answered that come in on an
	 * interface that is not the default route's, one of each family at most,
	 * as in "203.0.113.254 fe80::1"; default: those of the host's routes.
	 * "none": the route to the client decides.
	 */
	const char *reply_to;
	/**
	 * Networks, as in "192.168.1.0/24 2001:db8::/64", from which an address that
	 * a jail with its own network stack reports is believed, besides those of
	 * the host's bridges and epairs: the jail's address is one of the LAN, from
	 * DHCP; default: none. A network in addresses means the same.
	 */
	const char *trust;
	/**
	 * The families of the published ports: "inet", "inet6" or "inet inet6"; each
	 * is waited for, and its absence is an error; default: those of the jail's
	 * addresses.
	 */
	const char *families;
};

/**
 * One mapping of a spec. Pointers are valid until the spec is freed.
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
	 * The number of consecutive ports, on the host and in the jail.
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
 * One published redirect, or a jail without a known one. Pointers are valid
 * until the listing or outcome is freed.
 */
struct kport_entry {
	/**
	 * The jail; NULL if the anchor is not recorded, and in the outcome of a
	 * call for all jails.
	 */
	const char *jail;
	/**
	 * The anchor in pf, "kport/web"; NULL in the outcome of a call for all
	 * jails.
	 */
	const char *anchor;
	/**
	 * The place on the host, as in struct kport_mapping; NULL if count is 0.
	 */
	const char *place;
	/**
	 * The address in the jail; NULL if count is 0.
	 */
	const char *address;
	/**
	 * Packets that the rules have passed since they were loaded, in both
	 * directions.
	 */
	uint64_t packets;
	/**
	 * Bytes of these packets.
	 */
	uint64_t bytes;
	/**
	 * States (connections) that the rules have created.
	 */
	uint64_t states;
	/**
	 * The time of publication, in seconds since 1970; 0: unknown.
	 */
	int64_t since;
	/**
	 * The jid at the time of publication; 0: unknown.
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
	 * The number of consecutive ports; 0: no redirect of this anchor is known.
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
 * failure it is NULL. Fails with KPORT_ERR_SPEC if a spec is invalid, and
 * then kport_error_offset() returns the place; with KPORT_ERR_ARGUMENT if
 * text or out is NULL, or text is too long or not UTF-8. Uses nothing
 * outside the process.
 */
KPORT_MUST_USE
kport_status kport_parse(const char *text,
			 struct kport_spec **out,
			 struct kport_error **err);

/**
 * Reads the ports of Kleene's records: a PublishedPort of Kleened's API, or a
 * list of them, as JSON.
 *
 * The spec also holds the addresses of the records: kport_publish() uses them
 * if options->addresses is NULL. On success *out is a new spec, to be
 * freed with kport_spec_free(); on failure it is NULL. Fails with
 * KPORT_ERR_SPEC for ports that cannot be published, such as a range from
 * high to low or ranges of different lengths, and with KPORT_ERR_ARGUMENT
 * if json is not a record; the message names the record. Uses nothing
 * outside the process.
 */
KPORT_MUST_USE
kport_status kport_parse_kleene(const char *json,
				struct kport_spec **out,
				struct kport_error **err);

/**
 * Publishes all mappings of a spec for a jail. They replace the ports that the
 * jail had published; on failure nothing is changed. Publishing the same ports
 * again changes nothing and succeeds.
 *
 * The caller keeps the spec. options may be NULL. Fails with
 * KPORT_ERR_CONFLICT if one of the ports is in use, KPORT_ERR_UNAVAILABLE if
 * pf does not evaluate the rules or the jail's address is unknown,
 * KPORT_ERR_UNSUPPORTED if the jail uses the host's network,
 * KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
 * KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_publish(const char *jail,
			   const struct kport_spec *spec,
			   const struct kport_options *options,
			   struct kport_error **err);

/**
 * Removes all published ports of a jail, and ends their connections. It is not
 * an error if there are none.
 *
 * With options->jid, ports of a later start of the jail stay. options may be
 * NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
 * KPORT_ERR_ARGUMENT; even then as much as possible is removed, and the call
 * can be repeated.
 */
KPORT_MUST_USE
kport_status kport_unpublish(const char *jail,
			     const struct kport_options *options,
			     struct kport_error **err);

/**
 * Removes the given mappings of a jail, and ends their connections. The other
 * published ports stay.
 *
 * A mapping without a place is that of the host's default route, and "auto"
 * is any host port; it is not an error if a mapping is not published. With
 * options->jid, ports of a later start of the jail stay. options may be NULL.
 * Fails like kport_unpublish(), and with KPORT_ERR_UNAVAILABLE if there is no
 * pf to load the other ports.
 */
KPORT_MUST_USE
kport_status kport_unpublish_some(const char *jail,
				  const struct kport_spec *spec,
				  const struct kport_options *options,
				  struct kport_error **err);

/**
 * Lists the published ports of a jail, or of all jails if jail is NULL: a row
 * for each redirect, sorted by anchor.
 *
 * On success *out is a new listing, to be freed with kport_listing_free();
 * on failure it is NULL. It is not an error if nothing is published. Of the
 * counters, packets, bytes and states are 0 unless options->flags has
 * KPORT_COUNTERS. options may be NULL. Fails with KPORT_ERR_PERMISSION, KPORT_ERR_UNAVAILABLE,
 * KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_list(const char *jail,
			const struct kport_options *options,
			struct kport_listing **out,
			struct kport_error **err);

/**
 * Loads the recorded rules that are missing in pf, for all jails, as after
 * "pfctl -F all". Rules that pf has are not changed.
 *
 * options may be NULL. Fails with KPORT_ERR_UNAVAILABLE if there is no pf,
 * KPORT_ERR_PERMISSION, KPORT_ERR_BUSY, KPORT_ERR_SYSTEM,
 * KPORT_ERR_ARGUMENT; a failure for one jail does not stop the others, and
 * the call can be repeated.
 */
KPORT_MUST_USE
kport_status kport_restore(const struct kport_options *options,
			   struct kport_error **err);

/**
 * Removes the ports of jails that are gone, and anchors of kport that are not
 * recorded.
 *
 * options may be NULL. Fails like kport_restore().
 */
KPORT_MUST_USE
kport_status kport_gc(const struct kport_options *options,
		      struct kport_error **err);

/**
 * Creates the rules that kport_publish() would load, as pf.conf(5) text.
 * Nothing is loaded, and neither pf nor the records are read.
 *
 * On success *out is a new object, to be freed with kport_ruleset_free(); on
 * failure it is NULL. Fails with KPORT_ERR_UNAVAILABLE if options->addresses
 * is NULL, or if a mapping has no place and the host has no default route;
 * with KPORT_ERR_UNSUPPORTED for a host port "auto", or if the jail uses the
 * host's network; with KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT.
 */
KPORT_MUST_USE
kport_status kport_rules(const char *jail,
			 const struct kport_spec *spec,
			 const struct kport_options *options,
			 struct kport_ruleset **out,
			 struct kport_error **err);

/**
 * Begins to keep what is published true, as kport watch of kport(8) does:
 * what kport.conf(5), the records and the running jails say.
 *
 * config is the kport.conf(5); NULL: /usr/local/etc/kport.conf, which need not
 * exist. Of options, which may be NULL, backend, state_dir and timeout_ms are
 * used; the time-out is that of one transaction. On success *out is a new
 * watch, to be freed with kport_watch_free(); on failure it is NULL. Nothing is
 * changed before the first kport_watch_next(). Fails with
 * KPORT_ERR_PERMISSION, KPORT_ERR_SYSTEM, KPORT_ERR_ARGUMENT, and with
 * KPORT_ERR_UNSUPPORTED if the system reports no events.
 */
KPORT_MUST_USE
kport_status kport_watch_open(const char *config,
			      const struct kport_options *options,
			      struct kport_watch **out,
			      struct kport_error **err);

/**
 * Returns a descriptor for poll(2) or kqueue(2): it is readable when
 * kport_watch_next() has something to do. It belongs to the watch: only wait
 * for it. -1 for NULL.
 */
int kport_watch_descriptor(const struct kport_watch *watch);

/**
 * Does what there is to do now, at most for one jail, without waiting for
 * events; it can wait for a lock and for pf.
 *
 * *report is one line of JSON about what was done, as kport watch --json
 * prints it, valid until the next call; NULL if there is nothing to report:
 * then wait for the descriptor. What fails for a jail is reported, and tried
 * again. Fails with KPORT_ERR_SYSTEM if there will be no more events, and with
 * KPORT_ERR_ARGUMENT if watch or report is NULL.
 */
KPORT_MUST_USE
kport_status kport_watch_next(struct kport_watch *watch,
			      const char **report,
			      struct kport_error **err);

/**
 * Reads kport.conf(5) again, and applies it, by the next kport_watch_next().
 * The descriptor does not tell. NULL is ignored.
 */
void kport_watch_reload(struct kport_watch *watch);

/**
 * Ends a watch, and leaves everything that is published. NULL is ignored.
 */
void kport_watch_free(struct kport_watch *watch);

/**
 * Returns the spec with every field, one mapping for each protocol. The string
 * is valid until the spec is freed. NULL for NULL.
 */
const char *kport_spec_text(const struct kport_spec *spec);

/**
 * Returns the number of mappings. 0 for NULL.
 */
size_t kport_spec_len(const struct kport_spec *spec);

/**
 * Fills in a mapping; size is sizeof(struct kport_mapping) of the caller.
 * i counts from 0. Fails with KPORT_ERR_ARGUMENT, and does not write *out, if
 * there is no mapping i, or spec or out is NULL, or size is 0.
 */
KPORT_MUST_USE
kport_status kport_spec_get(const struct kport_spec *spec,
			    size_t i,
			    struct kport_mapping *out,
			    size_t size);

/**
 * Frees a spec. NULL is ignored.
 */
void kport_spec_free(struct kport_spec *spec);

/**
 * Returns the number of rows. 0 for NULL.
 */
size_t kport_listing_len(const struct kport_listing *listing);

/**
 * Fills in a row; size is sizeof(struct kport_entry) of the caller. i counts
 * from 0. Fails with KPORT_ERR_ARGUMENT, and does not write *out, if there is
 * no row i, or listing or out is NULL, or size is 0.
 */
KPORT_MUST_USE
kport_status kport_listing_get(const struct kport_listing *listing,
			       size_t i,
			       struct kport_entry *out,
			       size_t size);

/**
 * Frees a listing. NULL is ignored.
 */
void kport_listing_free(struct kport_listing *listing);

/**
 * Returns 1 if the call has changed pf, 0 if no change was needed. 0 for NULL.
 */
int kport_outcome_changed(const struct kport_outcome *outcome);

/**
 * Returns the number of connections (states of pf) that the call has ended. 0
 * for NULL.
 */
uint64_t kport_outcome_ended(const struct kport_outcome *outcome);

/**
 * Returns the number of notes. 0 for NULL.
 */
size_t kport_outcome_notes(const struct kport_outcome *outcome);

/**
 * Returns note i, counted from 0. A note concerns the administrator, but is not
 * a failure: a conflict that was overridden, connections that continue, or a
 * damaged record. One line without a newline, as kport(8) prints it, valid
 * until the outcome is freed. NULL if there is no note i.
 */
const char *kport_outcome_note(const struct kport_outcome *outcome, size_t i);

/**
 * Returns the number of rows. 0 for NULL.
 */
size_t kport_outcome_len(const struct kport_outcome *outcome);

/**
 * Fills in a row of the ports that are now published, with the port that was
 * chosen for "auto"; size is sizeof(struct kport_entry) of the caller. i
 * counts from 0. Counters, since and jid are 0. Fails like
 * kport_listing_get().
 */
KPORT_MUST_USE
kport_status kport_outcome_get(const struct kport_outcome *outcome,
			       size_t i,
			       struct kport_entry *out,
			       size_t size);

/**
 * Frees an outcome. NULL is ignored.
 */
void kport_outcome_free(struct kport_outcome *outcome);

/**
 * Returns the rules, one per line, as pfctl(8) reads them. The string is valid
 * until the object is freed. NULL for NULL.
 */
const char *kport_ruleset_text(const struct kport_ruleset *ruleset);

/**
 * Frees the rules. NULL is ignored.
 */
void kport_ruleset_free(struct kport_ruleset *ruleset);

/**
 * Returns the status of the failed call. KPORT_OK for NULL.
 */
kport_status kport_error_status(const struct kport_error *error);

/**
 * Returns what was found and what to do, on one line without a newline. The
 * string is valid until the error is freed. "" for NULL.
 */
const char *kport_error_message(const struct kport_error *error);

/**
 * Returns the errno of the system call that failed, or 0 if none failed. 0 for
 * NULL.
 */
int kport_error_errno(const struct kport_error *error);

/**
 * Returns the offset of the error, in bytes from 0, in the string given to
 * kport_parse(), or in the string of options that the message names. SIZE_MAX
 * if the error does not concern a place in a string, and for NULL.
 */
size_t kport_error_offset(const struct kport_error *error);

/**
 * Frees an error. NULL is ignored.
 */
void kport_error_free(struct kport_error *error);

/**
 * Returns a short description of a status, or of any other number. Never NULL;
 * must not be freed.
 */
const char *kport_status_text(int32_t status);

/**
 * Returns the version of the running library, "0.1.0"; KPORT_VERSION is that of
 * the header. Never NULL; must not be freed.
 */
const char *kport_version(void);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* KPORT_H */
