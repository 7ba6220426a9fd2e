/*
 * For LD_PRELOAD on Linux: /etc and /usr/local of this process are those below POISON, and each path that is used in them is
 * written to the file POISON/log. So a test sees whether a program reads files of the machine that it runs on.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *
below(const char *path, char *made)
{
	const char *root = getenv("POISON");
	long fd;

	if (root == NULL || (strncmp(path, "/etc/", 5) != 0 && strncmp(path, "/usr/local/", 11) != 0))
		return (path);
	if (snprintf(made, PATH_MAX, "%s/log", root) >= PATH_MAX)
		abort();
	fd = syscall(SYS_openat, AT_FDCWD, made, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0 || write((int)fd, path, strlen(path)) < 0 || write((int)fd, "\n", 1) < 0 || close((int)fd) < 0)
		abort();
	if (snprintf(made, PATH_MAX, "%s%s", root, path) >= PATH_MAX)
		abort();
	return (made);
}

int
open64(const char *path, int flags, ...)
{
	char made[PATH_MAX];
	va_list arguments;
	mode_t mode = 0;

	if ((flags & O_CREAT) != 0) {
		va_start(arguments, flags);
		mode = va_arg(arguments, mode_t);
		va_end(arguments);
	}
	return ((int)syscall(SYS_openat, AT_FDCWD, below(path, made), flags, mode));
}

DIR *
opendir(const char *path)
{
	char made[PATH_MAX];
	long fd = syscall(SYS_openat, AT_FDCWD, below(path, made), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return (fd < 0 ? NULL : fdopendir((int)fd));
}

int
statx(int dir, const char *restrict path, int flags, unsigned int mask, struct statx *restrict about)
{
	char made[PATH_MAX];

	return ((int)syscall(SYS_statx, dir, below(path, made), flags, mask, about));
}
