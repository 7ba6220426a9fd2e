/*
 * A host that has closed its standard descriptors, and goes on printing to
 * them, while it publishes: what it prints must not be in kport's files.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

#define ROUNDS	300

static volatile int done;

static void *
print(void *unused)
{
	static const char line[] = "the host's log: nothing new\n";
	char input[16];

	while (!done) {
		(void)!write(1, line, sizeof(line) - 1);
		(void)!write(2, line, sizeof(line) - 1);
		(void)!read(0, input, sizeof(input));
	}
	return (unused);
}

/* One spec or the other, so that each round writes. */
int
main(void)
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *specs[2];
	pthread_t printing;
	int i;

	options.backend = "sim";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	if (kport_parse("em0:8080:80", &specs[0], NULL) != KPORT_OK ||
	    kport_parse("em0:8081:80", &specs[1], NULL) != KPORT_OK)
		return (1);
	for (i = 0; i < 3; i++)
		close(i);
	if (pthread_create(&printing, NULL, print, NULL) != 0)
		return (1);
	for (i = 0; i < ROUNDS && !check_failed; i++)
		if (kport_publish("web", specs[i % 2], &options, NULL) !=
		    KPORT_OK)
			check_failed = 1;
	done = 1;
	pthread_join(printing, NULL);
	/* the three are as free as they were */
	for (i = 0; i < 3; i++)
		if (dup2(i, 9) != -1)
			check_failed = 1;
	kport_spec_free(specs[0]);
	kport_spec_free(specs[1]);
	return (check_failed);
}
