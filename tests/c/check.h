/*
 * Assertions for the C tests: a program goes on after a failed one, and its
 * exit status says whether there was any.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <string.h>

#include <kport.h>

static int check_failed;

#define CHECK(what) do {						\
	if (!(what)) {							\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,	\
		    #what);						\
		check_failed = 1;					\
	}								\
} while (0)

/*
 * The call that made status failed as it should: the error tells the same
 * status, and one line. Frees the error.
 */
#define CHECK_FAILED(call, expected, word) do {				\
	struct kport_error *error_ = (struct kport_error *)&error_;	\
	struct kport_error **err_ = &error_;				\
	const char *message_;						\
	CHECK((call) == (expected));					\
	CHECK(kport_error_status(error_) == (expected));		\
	message_ = kport_error_message(error_);				\
	CHECK(message_[0] != '\0' && strchr(message_, '\n') == NULL);	\
	if (strstr(message_, (word)) == NULL) {				\
		fprintf(stderr, "%s:%d: \"%s\" not in: %s\n", __FILE__,	\
		    __LINE__, (word), message_);			\
		check_failed = 1;					\
	}								\
	kport_error_free(error_);					\
} while (0)

#endif
