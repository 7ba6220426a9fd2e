/*
 * The header can be read twice, in every dialect of C and C++ that it
 * promises, and means the same layout in all of them.
 */
#include <kport.h>
#include <kport.h>

#include "check.h"

#define ASSERT(name, what) typedef char assert_##name[(what) ? 1 : -1]

#if UINTPTR_MAX == UINT64_MAX
ASSERT(options_size, sizeof(struct kport_options) == 128);
ASSERT(options_backend, offsetof(struct kport_options, backend) == 8);
ASSERT(options_state_dir, offsetof(struct kport_options, state_dir) == 16);
ASSERT(options_addresses, offsetof(struct kport_options, addresses) == 24);
ASSERT(options_gateway, offsetof(struct kport_options, gateway) == 32);
ASSERT(options_reach, offsetof(struct kport_options, reach) == 40);
ASSERT(options_sources, offsetof(struct kport_options, sources) == 48);
ASSERT(options_outcome, offsetof(struct kport_options, outcome) == 56);
ASSERT(options_timeout, offsetof(struct kport_options, timeout_ms) == 64);
ASSERT(options_flags, offsetof(struct kport_options, flags) == 68);
ASSERT(options_max, offsetof(struct kport_options, max_connections) == 72);
ASSERT(options_per_source,
    offsetof(struct kport_options, max_connections_per_source) == 76);
ASSERT(options_rate, offsetof(struct kport_options, rate_connections) == 80);
ASSERT(options_seconds, offsetof(struct kport_options, rate_seconds) == 84);
ASSERT(options_jid, offsetof(struct kport_options, jid) == 88);
ASSERT(options_auto_first, offsetof(struct kport_options, auto_first) == 92);
ASSERT(options_auto_last, offsetof(struct kport_options, auto_last) == 94);
ASSERT(options_wait, offsetof(struct kport_options, wait_ms) == 96);
ASSERT(options_reserved, offsetof(struct kport_options, reserved) == 100);
ASSERT(options_reply_to, offsetof(struct kport_options, reply_to) == 104);
ASSERT(options_trust, offsetof(struct kport_options, trust) == 112);
ASSERT(options_families, offsetof(struct kport_options, families) == 120);

ASSERT(mapping_size, sizeof(struct kport_mapping) == 16);
ASSERT(mapping_host_port, offsetof(struct kport_mapping, host_port) == 8);
ASSERT(mapping_jail_port, offsetof(struct kport_mapping, jail_port) == 10);
ASSERT(mapping_count, offsetof(struct kport_mapping, count) == 12);
ASSERT(mapping_protocol, offsetof(struct kport_mapping, protocol) == 14);
ASSERT(mapping_reserved, offsetof(struct kport_mapping, reserved) == 15);

ASSERT(entry_size, sizeof(struct kport_entry) == 80);
ASSERT(entry_anchor, offsetof(struct kport_entry, anchor) == 8);
ASSERT(entry_place, offsetof(struct kport_entry, place) == 16);
ASSERT(entry_address, offsetof(struct kport_entry, address) == 24);
ASSERT(entry_packets, offsetof(struct kport_entry, packets) == 32);
ASSERT(entry_bytes, offsetof(struct kport_entry, bytes) == 40);
ASSERT(entry_states, offsetof(struct kport_entry, states) == 48);
ASSERT(entry_since, offsetof(struct kport_entry, since) == 56);
ASSERT(entry_jid, offsetof(struct kport_entry, jid) == 64);
ASSERT(entry_state, offsetof(struct kport_entry, state) == 68);
ASSERT(entry_host_port, offsetof(struct kport_entry, host_port) == 72);
ASSERT(entry_jail_port, offsetof(struct kport_entry, jail_port) == 74);
ASSERT(entry_count, offsetof(struct kport_entry, count) == 76);
ASSERT(entry_protocol, offsetof(struct kport_entry, protocol) == 78);
ASSERT(entry_family, offsetof(struct kport_entry, family) == 79);
#endif
ASSERT(status_size, sizeof(kport_status) == 4);
ASSERT(options_first, offsetof(struct kport_options, size) == 0);
ASSERT(entry_first, offsetof(struct kport_entry, jail) == 0);
ASSERT(mapping_first, offsetof(struct kport_mapping, place) == 0);

ASSERT(ok, KPORT_OK == 0);
ASSERT(argument, KPORT_ERR_ARGUMENT == 1);
ASSERT(spec, KPORT_ERR_SPEC == 2);
ASSERT(conflict, KPORT_ERR_CONFLICT == 3);
ASSERT(permission, KPORT_ERR_PERMISSION == 4);
ASSERT(unavailable, KPORT_ERR_UNAVAILABLE == 5);
ASSERT(busy, KPORT_ERR_BUSY == 6);
ASSERT(system, KPORT_ERR_SYSTEM == 7);
ASSERT(unsupported, KPORT_ERR_UNSUPPORTED == 8);
ASSERT(internal, KPORT_ERR_INTERNAL == 9);
ASSERT(live, KPORT_LIVE == 1);
ASSERT(missing, KPORT_MISSING == 2);
ASSERT(stale, KPORT_STALE == 3);
ASSERT(inert, KPORT_INERT == 4);
ASSERT(force, KPORT_FORCE == 1);
ASSERT(allow_inert, KPORT_ALLOW_INERT == 2);
ASSERT(hairpin, KPORT_HAIRPIN == 4);
ASSERT(host_access, KPORT_HOST_ACCESS == 8);
ASSERT(log, KPORT_LOG == 16);
ASSERT(no_quick, KPORT_NO_QUICK == 32);
ASSERT(add, KPORT_ADD == 64);
ASSERT(no_jail, KPORT_NO_JAIL == 128);
ASSERT(masquerade, KPORT_MASQUERADE == 256);
ASSERT(af_to, KPORT_AF_TO == 512);
ASSERT(counters, KPORT_COUNTERS == 1024);

int
main(void)
{
	static const struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *spec;
	char version[32];

	CHECK(options.size == sizeof(options));
	CHECK(options.backend == NULL && options.sources == NULL);
	CHECK(options.flags == 0 && options.auto_last == 0);
	CHECK(options.outcome == NULL && options.wait_ms == 0);

	snprintf(version, sizeof(version), "%d.%d.%d", KPORT_VERSION_MAJOR,
	    KPORT_VERSION_MINOR, KPORT_VERSION_PATCH);
	CHECK(strcmp(version, KPORT_VERSION) == 0);
	CHECK(strcmp(version, kport_version()) == 0);

	CHECK(kport_parse("8080:80", &spec, NULL) == KPORT_OK);
	CHECK(strcmp(kport_spec_text(spec), "8080:80/tcp") == 0);
	kport_spec_free(spec);
	return (check_failed);
}
