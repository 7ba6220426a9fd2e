/*
 * Hosts that are not a quiet single-threaded program: the argument says which.
 * Standard error is looked at by the caller; here only 3 and above are used.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

#define THREADS 200

static struct kport_options options = KPORT_OPTIONS_INIT;
static struct kport_spec *shared;

/* Publish, list and unpublish one jail; the number makes it another one. */
static int
round_trip(int number)
{
	char name[32], text[32];
	struct kport_spec *spec;
	struct kport_listing *listing;
	struct kport_entry entry;
	int good;

	snprintf(name, sizeof(name), "jail%d", number);
	snprintf(text, sizeof(text), "em0:%d:80", 10000 + number);
	if (kport_parse(text, &spec, NULL) != KPORT_OK)
		return (0);
	good = kport_publish(name, spec, &options, NULL) == KPORT_OK &&
	    kport_list(name, &options, &listing, NULL) == KPORT_OK;
	kport_spec_free(spec);
	if (!good)
		return (0);
	good = kport_listing_len(listing) == 1 &&
	    kport_listing_get(listing, 0, &entry, sizeof(entry)) == KPORT_OK &&
	    strcmp(entry.jail, name) == 0 &&
	    entry.host_port == 10000 + number && entry.state == KPORT_LIVE;
	kport_listing_free(listing);
	return (good && strcmp(kport_spec_text(shared), "1-9:1-9/tcp") == 0 &&
	    kport_unpublish(name, &options, NULL) == KPORT_OK);
}

static void *
thread(void *number)
{
	return (round_trip(*(int *)number) ? number : NULL);
}

static int
threads(int count)
{
	static int numbers[THREADS];
	static pthread_t ids[THREADS];
	void *result;
	int good, i;

	for (good = 1, i = 0; i < count; i++) {
		numbers[i] = i;
		if (pthread_create(&ids[i], NULL, thread, &numbers[i]) != 0)
			abort();
	}
	for (i = 0; i < count; i++) {
		pthread_join(ids[i], &result);
		good &= result != NULL;
	}
	return (good);
}

/*
 * A child of a process that has used the library, and may have another thread
 * in it at that moment.
 */
static int
forked(int busy)
{
	static int number = 1;
	pthread_t id;
	pid_t child;
	int status;

	if (!round_trip(0))
		return (0);
	if (busy && pthread_create(&id, NULL, thread, &number) != 0)
		abort();
	if ((child = fork()) == 0) {
		status = round_trip(2) ? 0 : 1;
		kport_spec_free(shared);
		_exit(status);
	}
	if (busy)
		pthread_join(id, NULL);
	return (waitpid(child, &status, 0) == child && WIFEXITED(status) &&
	    WEXITSTATUS(status) == 0);
}

/* No descriptor is left open, and none that is opened survives exec. */
static int
descriptors(void)
{
	int before, after;

	before = open("/dev/null", O_RDONLY);
	close(before);
	if (!round_trip(0))
		return (0);
	after = open("/dev/null", O_RDONLY);
	close(after);
	return (before == after);
}

static int
closed(void)
{
	int good;

	close(0);
	close(1);
	close(2);
	good = descriptors();
	/* nothing of the library's went to where the three had been */
	return (good && open("/dev/null", O_RDWR) == 0);
}

/* The dispositions, mask and directory are as they were. */
static int
signals(void (*child)(int))
{
	struct sigaction action;
	sigset_t before, after;
	char old[4096], new[4096];
	int good, i;

	signal(SIGCHLD, child);
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, NULL, &before);
	good = getcwd(old, sizeof(old)) != NULL && round_trip(0);
	sigprocmask(SIG_SETMASK, NULL, &after);
	for (i = 1; i < 32; i++)
		good &= sigismember(&before, i) == sigismember(&after, i);
	sigaction(SIGCHLD, NULL, &action);
	good &= action.sa_handler == child;
	sigaction(SIGPIPE, NULL, &action);
	good &= action.sa_handler == SIG_DFL;
	return (good && getcwd(new, sizeof(new)) != NULL &&
	    strcmp(old, new) == 0);
}

int
main(int argc, char *argv[])
{
	const char *host;
	int good;

	host = argc == 2 ? argv[1] : "";
	options.backend = "sim";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	if (kport_parse("1-9", &shared, NULL) != KPORT_OK)
		return (1);
	if (strcmp(host, "threads") == 0)
		good = threads(THREADS);
	else if (strcmp(host, "some-threads") == 0)
		good = threads(THREADS / 10);
	else if (strcmp(host, "forked") == 0)
		good = forked(0);
	else if (strcmp(host, "forked-busy") == 0)
		good = forked(1);
	else if (strcmp(host, "descriptors") == 0)
		good = descriptors();
	else if (strcmp(host, "closed") == 0)
		good = closed();
	else if (strcmp(host, "sigchld-ignored") == 0)
		good = signals(SIG_IGN);
	else
		good = strcmp(host, "sigchld-default") == 0 &&
		    signals(SIG_DFL);
	kport_spec_free(shared);
	CHECK(good);
	return (check_failed);
}
