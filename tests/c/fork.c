/*
 * A host with a thread that forks workers all the time, which keep every
 * descriptor and live on, while another one publishes. The lock that a worker
 * has a descriptor of is not the worker's.
 */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/wait.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

#define WORKERS	200
#define ROUNDS	100

static pid_t workers[WORKERS];

static void *
fork_workers(void *unused)
{
	struct timespec pause = { 0, 300000 };
	int i;

	for (i = 0; i < WORKERS; i++) {
		if ((workers[i] = fork()) == 0)
			for (;;)
				sleep(60);
		nanosleep(&pause, NULL);
	}
	return (unused);
}

int
main(void)
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_error *err;
	struct kport_spec *spec;
	pthread_t forking;
	int i;

	options.backend = "sim";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	/* who waits for its own worker waits in vain */
	options.timeout_ms = 2000;
	if (kport_parse("em0:8080:80", &spec, NULL) != KPORT_OK ||
	    pthread_create(&forking, NULL, fork_workers, NULL) != 0)
		return (1);
	for (i = 0; i < ROUNDS; i++) {
		err = NULL;
		if (kport_publish("web", spec, &options, &err) != KPORT_OK ||
		    kport_unpublish("web", &options, &err) != KPORT_OK) {
			fprintf(stderr, "round %d: %s\n", i,
			    kport_error_message(err));
			kport_error_free(err);
			check_failed = 1;
			break;
		}
	}
	pthread_join(forking, NULL);
	for (i = 0; i < WORKERS; i++) {
		if (workers[i] > 0) {
			kill(workers[i], SIGKILL);
			waitpid(workers[i], NULL, 0);
		}
	}
	kport_spec_free(spec);
	return (check_failed);
}
