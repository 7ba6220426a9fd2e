/*
 * What a jail manager in C does when a jail starts and stops.
 *
 *	hook start web 7 "10.0.0.2 fd00::2" "8080:80 8443:443"
 *	hook stop web 7
 *
 * 7 is the jid. With it, a stop that comes after the next start, as in a
 * restart, does not remove the new ports.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <kport.h>

static struct kport_options options = KPORT_OPTIONS_INIT;

/* Prints what failed and what to do. Frees the error. */
static kport_status
report(const char *jail, const char *text, struct kport_error *error)
{
	kport_status status;
	size_t offset;

	status = kport_error_status(error);
	offset = kport_error_offset(error);
	fprintf(stderr, "jail %s: %s\n", jail, kport_error_message(error));
	if (text != NULL && offset <= strlen(text))
		fprintf(stderr, "\t%s\n\t%*s^\n", text, (int)offset, "");
	switch (status) {
	case KPORT_ERR_BUSY:
		fprintf(stderr, "jail %s: try again\n", jail);
		break;
	case KPORT_ERR_INTERNAL:
		fprintf(stderr, "jail %s: this is a bug in kport %s\n",
		    jail, kport_version());
		break;
	default:
		break;
	}
	kport_error_free(error);
	return (status);
}

/* Prints the notes of a call that succeeded. */
static void
tell(const struct kport_outcome *outcome)
{
	size_t i;

	for (i = 0; i < kport_outcome_notes(outcome); i++)
		fprintf(stderr, "kport: %s\n", kport_outcome_note(outcome, i));
}

/* The jail does not start if its ports cannot be published. */
static kport_status
start(const char *jail, const char *text)
{
	struct kport_spec *spec;
	struct kport_outcome *outcome;
	struct kport_error *error;
	kport_status status;

	if (kport_parse(text, &spec, &error) != KPORT_OK)
		return (report(jail, text, error));
	options.outcome = &outcome;
	status = kport_publish(jail, spec, &options, &error);
	kport_spec_free(spec);
	tell(outcome);
	kport_outcome_free(outcome);
	if (status != KPORT_OK)
		return (report(jail, NULL, error));
	return (KPORT_OK);
}

/* The jail is gone in any case, so a failure is only reported. */
static kport_status
stop(const char *jail)
{
	struct kport_outcome *outcome;
	struct kport_error *error;

	options.outcome = &outcome;
	if (kport_unpublish(jail, &options, &error) != KPORT_OK) {
		report(jail, NULL, error);
		fprintf(stderr, "jail %s: \"kport apply\" removes what is left\n",
		    jail);
	}
	tell(outcome);
	kport_outcome_free(outcome);
	return (KPORT_OK);
}

int
main(int argc, char *argv[])
{
	options.backend = getenv("KPORT_BACKEND");
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.timeout_ms = 10000;
	if (argc >= 4)
		options.jid = atoi(argv[3]);
	if (argc == 6 && strcmp(argv[1], "start") == 0) {
		options.addresses = argv[4];
		return (start(argv[2], argv[5]));
	}
	if (argc == 4 && strcmp(argv[1], "stop") == 0)
		return (stop(argv[2]));
	fprintf(stderr, "usage: hook start jail jid \"address ...\" "
	    "\"spec ...\"\n       hook stop jail jid\n");
	return (64);
}
