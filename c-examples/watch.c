/*
 * Keeps what is published true in an event loop of its own, and prints a line
 * of JSON for each change.
 *
 *	cc watch.c $(pkg-config --cflags --libs kport) -o watch
 *	./watch /usr/local/etc/kport.conf 10
 *
 * It ends after that many lines; 0: never. The backend and the state directory
 * are those of KPORT_BACKEND and KPORT_STATE_DIR.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <kport.h>

static int
failed(struct kport_error *error)
{
	fprintf(stderr, "watch: %s\n", kport_error_message(error));
	kport_error_free(error);
	return (1);
}

int
main(int argc, char *argv[])
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_watch *watch;
	struct kport_error *error;
	struct pollfd fd;
	const char *report;
	long left;

	if (argc != 3) {
		fprintf(stderr, "usage: watch config lines\n");
		return (64);
	}
	options.backend = getenv("KPORT_BACKEND");
	options.state_dir = getenv("KPORT_STATE_DIR");
	left = strtol(argv[2], NULL, 10);
	if (kport_watch_open(argv[1], &options, &watch, &error) != KPORT_OK)
		return (failed(error));
	fd.fd = kport_watch_descriptor(watch);
	fd.events = POLLIN;
	do {
		if (kport_watch_next(watch, &report, &error) != KPORT_OK) {
			kport_watch_free(watch);
			return (failed(error));
		}
		if (report != NULL) {
			puts(report);
			if (--left == 0)
				break;
		} else
			/* a signal ends it as well */
			(void)poll(&fd, 1, -1);
	} while (!ferror(stdout));
	kport_watch_free(watch);
	return (0);
}
