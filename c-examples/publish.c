/*
 * Publishes ports of a jail, lists them, and unpublishes them.
 *
 *	cc publish.c $(pkg-config --cflags --libs kport) -o publish
 *	./publish web 10.0.0.2 "8080:80 em0:5353:53/udp"
 *
 * The library does not read the environment. Like kport(8), this program
 * takes the backend and the state directory from KPORT_BACKEND and
 * KPORT_STATE_DIR.
 */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#include <kport.h>

static const char *
protocol(int number)
{
	switch (number) {
	case IPPROTO_TCP:
		return ("tcp");
	case IPPROTO_UDP:
		return ("udp");
	default:
		return ("sctp");
	}
}

int
main(int argc, char *argv[])
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *spec = NULL;
	struct kport_outcome *outcome = NULL;
	struct kport_listing *listing = NULL;
	struct kport_error *error = NULL;
	struct kport_entry entry;
	kport_status status;
	size_t i;

	if (argc != 4) {
		fprintf(stderr, "usage: publish jail address \"spec ...\"\n");
		return (64);
	}
	options.backend = getenv("KPORT_BACKEND");
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = argv[2];
	options.gateway = "em0";

	if ((status = kport_parse(argv[3], &spec, &error)) != KPORT_OK)
		goto out;
	options.outcome = &outcome;
	if ((status = kport_publish(argv[1], spec, &options, &error)) !=
	    KPORT_OK)
		goto out;
	printf("published %s\n", kport_spec_text(spec));
	for (i = 0; i < kport_outcome_notes(outcome); i++)
		fprintf(stderr, "publish: %s\n", kport_outcome_note(outcome, i));
	options.outcome = NULL;

	if ((status = kport_list(argv[1], &options, &listing, &error)) !=
	    KPORT_OK)
		goto out;
	for (i = 0; i < kport_listing_len(listing); i++) {
		if ((status = kport_listing_get(listing, i, &entry,
		    sizeof(entry))) != KPORT_OK)
			goto out;
		printf("%s: %s port %u on %s -> %s port %u%s\n", entry.jail,
		    protocol(entry.protocol), entry.host_port, entry.place,
		    entry.address, entry.jail_port,
		    entry.state == KPORT_LIVE ? "" : " (not in pf)");
	}

	if ((status = kport_unpublish(argv[1], &options, &error)) != KPORT_OK)
		goto out;
	printf("unpublished %s\n", argv[1]);
out:
	if (status != KPORT_OK)
		fprintf(stderr, "publish: %s: %s\n", kport_status_text(status),
		    kport_error_message(error));
	kport_error_free(error);
	kport_listing_free(listing);
	kport_outcome_free(outcome);
	kport_spec_free(spec);
	return (status);
}
