/*
 * A host whose way with children is not the usual one, while the library runs
 * pfctl(8): the first argument says which. The second is the program to run
 * in place of /sbin/pfctl, which the library calls by that name only; this
 * program puts itself between it and posix_spawnp(3).
 */
#define _GNU_SOURCE

#include <sys/types.h>
#include <sys/wait.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

static char *pfctl;
static int spawned;

int
posix_spawnp(pid_t *pid, const char *path,
    const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attr,
    char *const argv[], char *const envp[])
{
	int (*next)(pid_t *, const char *, const posix_spawn_file_actions_t *,
	    const posix_spawnattr_t *, char *const [], char *const []);
	char *copy[64];
	size_t i;

	if (strcmp(path, "/sbin/pfctl") != 0)
		return (ENOENT);
	for (i = 0; argv[i] != NULL && i < 63; i++)
		copy[i] = argv[i];
	copy[i] = NULL;
	copy[0] = pfctl;
	spawned++;
	*(void **)&next = dlsym(RTLD_NEXT, "posix_spawnp");
	return (next(pid, pfctl, actions, attr, copy, envp));
}

/* A host that waits for whoever comes, before the library can. */
static void
reap(int signal_)
{
	int saved;

	(void)signal_;
	saved = errno;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

int
main(int argc, char *argv[])
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *spec;
	struct kport_listing *listing;
	struct kport_entry entry;
	struct kport_error *error;
	void (*child)(int);
	struct sigaction action;
	int before, after, own, status;

	if (argc != 3)
		return (64);
	pfctl = argv[2];
	child = SIG_DFL;
	if (strcmp(argv[1], "ignores") == 0)
		child = SIG_IGN;
	else if (strcmp(argv[1], "reaps") == 0)
		child = reap;
	else if (strcmp(argv[1], "closed") == 0) {
		close(0);
		close(1);
		close(2);
	}
	signal(SIGCHLD, child);
	signal(SIGPIPE, SIG_DFL);

	/* a child of the host's own, which is the host's to wait for */
	if ((own = fork()) == 0) {
		pause();
		_exit(0);
	}
	before = open("/dev/null", O_RDONLY);
	close(before);

	options.backend = "pfctl";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	/* whether packets are forwarded is not the question here */
	options.flags = KPORT_ALLOW_INERT;
	CHECK(kport_parse("em0:8080:80", &spec, NULL) == KPORT_OK);
	CHECK(kport_publish("web", spec, &options, &error) == KPORT_OK);
	if (error != NULL)
		fprintf(stderr, "%s\n", kport_error_message(error));
	kport_error_free(error);
	kport_spec_free(spec);
	CHECK(kport_list("web", &options, &listing, NULL) == KPORT_OK);
	CHECK(kport_listing_get(listing, 0, &entry, sizeof(entry)) ==
	    KPORT_OK && entry.state == KPORT_LIVE);
	kport_listing_free(listing);
	CHECK(kport_unpublish("web", &options, NULL) == KPORT_OK);
	CHECK(spawned > 3);

	after = open("/dev/null", O_RDONLY);
	close(after);
	CHECK(before == after);
	sigaction(SIGCHLD, NULL, &action);
	CHECK(action.sa_handler == child);
	sigaction(SIGPIPE, NULL, &action);
	CHECK(action.sa_handler == SIG_DFL);
	/* nobody has waited for the host's own child, and there is no other */
	CHECK(kill(own, 0) == 0 && kill(own, SIGKILL) == 0);
	if (child == SIG_DFL) {
		CHECK(waitpid(-1, &status, 0) == own && WIFSIGNALED(status));
		CHECK(waitpid(-1, &status, 0) == -1 && errno == ECHILD);
	}
	return (check_failed);
}
