/*
 * The cost of kport on this host, with its kernel: publish, publish the same
 * ports again, unpublish and list, for 1, 10 and 50 mappings; how publishing
 * one mapping grows with other pf.conf files and with published jails; and a
 * run of pfctl(8), to compare the results between hosts.
 *
 *	cc -O2 kernel.c $(pkg-config --cflags --libs kport) -o kernel
 *	./kernel [-b backend] [-i interface] [-n rounds] [-p pfctl]
 *	    [-j jails] [conf ...]
 *
 * Run it as root on a host whose ports 20000 to 20999 and 30000 and up are
 * free. It publishes for jails that do not exist, kport-bench and
 * kport-bench-N, with addresses of RFC 2544 (198.18.0.0/15), keeps its records
 * in a temporary directory, and removes all of it. Each conf is loaded with
 * pfctl -f, to measure the growth with pf.conf: the last one stays loaded.
 * Times are medians in milliseconds; backend "sim" does not use the kernel.
 */
/* mkdtemp(3) and clock_gettime(2) with any -std */
#define _POSIX_C_SOURCE 200809L

#include <sys/types.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <kport.h>

#define MAX_ROUNDS 999
#define JAIL "kport-bench"

static struct kport_options options = KPORT_OPTIONS_INIT;
static const char *pfctl = "/sbin/pfctl";
static unsigned rounds = 21;

static double
now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (at.tv_sec * 1e3 + at.tv_nsec / 1e6);
}

static void
check(kport_status status, const char *what, struct kport_error **error)
{
	if (status == KPORT_OK)
		return;
	fprintf(stderr, "kernel: %s: %s\n", what, kport_error_message(*error));
	exit(1);
}

static int
smaller(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return ((x > y) - (x < y));
}

static double
median(double *times)
{
	qsort(times, rounds, sizeof(*times), smaller);
	return (times[rounds / 2]);
}

/* Runs pfctl(8) once, without its output. */
static void
run(const char *const argv[])
{
	int null, status;
	pid_t pid;

	if ((pid = fork()) == -1) {
		perror("kernel: fork");
		exit(1);
	}
	if (pid == 0) {
		if ((null = open("/dev/null", O_RDWR)) == -1)
			_exit(127);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execv(pfctl, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) != pid || status != 0) {
		fprintf(stderr, "kernel: %s failed\n", pfctl);
		exit(1);
	}
}

/* A pfctl run that loads one rule into an anchor that nothing calls. */
static double
one_run(void)
{
	static const char rule[] = "pass in quick inet proto tcp from any "
	    "to 198.18.0.1 port 80 keep state\n";
	char file[] = "/tmp/kport-bench.XXXXXX";
	const char *load[] = { pfctl, "-q", "-a", "kport-bench-run", "-f", file,
	    NULL };
	const char *clear[] = { pfctl, "-q", "-a", "kport-bench-run", "-f",
	    "/dev/null", NULL };
	double start, times[MAX_ROUNDS];
	unsigned i;
	int fd;

	if ((fd = mkstemp(file)) == -1 ||
	    write(fd, rule, sizeof(rule) - 1) != (ssize_t)sizeof(rule) - 1) {
		perror("kernel: a file for pfctl");
		exit(1);
	}
	close(fd);
	for (i = 0; i < rounds; i++) {
		start = now();
		run(load);
		times[i] = now() - start;
	}
	run(clear);
	unlink(file);
	return (median(times));
}

static struct kport_spec *
mappings(unsigned first, unsigned count)
{
	struct kport_error *error = NULL;
	struct kport_spec *spec = NULL;
	size_t room = (size_t)count * 16 + 1, length = 0;
	char *text;
	unsigned i;

	if ((text = malloc(room)) == NULL) {
		perror("kernel");
		exit(1);
	}
	for (i = 0; i < count; i++)
		length += (size_t)snprintf(text + length, room - length,
		    "%u:%u ", first + 2 * i, 80 + 2 * i);
	check(kport_parse(text, &spec, &error), text, &error);
	free(text);
	return (spec);
}

static double
publish(const char *jail, const char *address, const struct kport_spec *spec)
{
	struct kport_error *error = NULL;
	double start = now();

	options.addresses = address;
	check(kport_publish(jail, spec, &options, &error), "publish", &error);
	options.addresses = NULL;
	return (now() - start);
}

static double
unpublish(const char *jail)
{
	struct kport_error *error = NULL;
	double start = now();

	check(kport_unpublish(jail, &options, &error), "unpublish", &error);
	return (now() - start);
}

static double
list(void)
{
	struct kport_error *error = NULL;
	struct kport_listing *listing = NULL;
	double start = now();

	check(kport_list(NULL, &options, &listing, &error), "list", &error);
	kport_listing_free(listing);
	return (now() - start);
}

static void
row(unsigned count, double unit)
{
	double first[MAX_ROUNDS], again[MAX_ROUNDS], away[MAX_ROUNDS],
	    shown[MAX_ROUNDS];
	struct kport_spec *spec = mappings(20000, count);
	unsigned i;

	for (i = 0; i < rounds; i++) {
		first[i] = publish(JAIL, "198.18.0.1", spec);
		again[i] = publish(JAIL, "198.18.0.1", spec);
		shown[i] = list();
		away[i] = unpublish(JAIL);
	}
	kport_spec_free(spec);
	printf("| %8u | %8.2f | %8.2f | %9.2f | %8.2f | %12.3f |\n", count,
	    median(first), median(again), median(away), median(shown),
	    median(first) / unit);
}

/* Publishes one mapping again and again. */
static double
one_more(void)
{
	struct kport_spec *spec = mappings(20000, 1);
	double times[MAX_ROUNDS];
	unsigned i;

	for (i = 0; i < rounds; i++) {
		times[i] = publish(JAIL, "198.18.0.1", spec);
		unpublish(JAIL);
	}
	kport_spec_free(spec);
	return (median(times));
}

static void
others(unsigned from, unsigned to, int up)
{
	char jail[32], address[20];
	struct kport_spec *spec;
	unsigned i;

	for (i = from; i < to; i++) {
		snprintf(jail, sizeof(jail), JAIL "-%u", i);
		snprintf(address, sizeof(address), "198.19.%u.%u",
		    i / 250 & 255, i % 250 + 1);
		if (up) {
			spec = mappings(30000 + i, 1);
			publish(jail, address, spec);
			kport_spec_free(spec);
		} else
			unpublish(jail);
	}
}

int
main(int argc, char *argv[])
{
	char dir[] = "/tmp/kport-bench.XXXXXX", command[64];
	const char *load[] = { NULL, "-f", NULL, NULL };
	unsigned counts[] = { 1, 10, 50 }, jails = 100, sizes[4], size = 0, i;
	double more, unit = 1;
	int ch, played;

	options.backend = "native";
	options.gateway = "em0";
	options.flags = KPORT_ALLOW_INERT;
	while ((ch = getopt(argc, argv, "b:i:j:n:p:")) != -1)
		switch (ch) {
		case 'b':
			options.backend = optarg;
			break;
		case 'i':
			options.gateway = optarg;
			break;
		case 'j':
			jails = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			rounds = (unsigned)strtoul(optarg, NULL, 10);
			break;
		case 'p':
			pfctl = optarg;
			break;
		default:
			fprintf(stderr, "usage: kernel [-b backend] "
			    "[-i interface] [-n rounds] [-p pfctl] [-j jails] "
			    "[conf ...]\n");
			return (64);
		}
	if (rounds < 1 || rounds > MAX_ROUNDS || jails > 10000) {
		fprintf(stderr, "kernel: 1 to %d rounds, at most 10000 jails\n",
		    MAX_ROUNDS);
		return (64);
	}
	if (mkdtemp(dir) == NULL) {
		perror("kernel: a state directory");
		return (1);
	}
	options.state_dir = dir;
	played = strcmp(options.backend, "sim") == 0;

	if (!played) {
		unit = one_run();
		printf("one run of pfctl: %.2f ms\n", unit);
	}
	printf("backend %s, %u rounds, medians in ms\n\n", options.backend,
	    rounds);
	printf("| mappings | publish  | again    | unpublish | list     | "
	    "of a run     |\n|---|---|---|---|---|---|\n");
	for (i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		row(counts[i], unit);

	printf("\n| pf.conf | publish one |\n|---|---|\n| current | %.2f |\n",
	    one_more());
	for (; optind < argc && !played; optind++) {
		load[0] = pfctl;
		load[2] = argv[optind];
		run(load);
		printf("| %s | %.2f |\n", argv[optind], one_more());
	}

	printf("\n| published jails | publish one more | list |\n"
	    "|---|---|---|\n");
	sizes[0] = jails / 100;
	sizes[1] = jails / 10;
	sizes[2] = jails / 2;
	sizes[3] = jails;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		others(size, sizes[i], 1);
		size = sizes[i];
		more = one_more();
		printf("| %u | %.2f | %.2f |\n", size, more, list());
	}
	others(0, size, 0);

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return (system(command) == 0 ? 0 : 1);
}
