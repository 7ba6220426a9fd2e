/*
 * NULL in every argument of every function.
 */
#include <stdlib.h>

#include "check.h"

int
main(void)
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *spec = NULL;
	struct kport_listing *listing = NULL;
	struct kport_ruleset *ruleset = NULL;
	struct kport_watch *watch = NULL;
	struct kport_mapping mapping;
	struct kport_entry entry;
	const char *report;

	options.backend = "sim";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	CHECK_FAILED(kport_parse(NULL, &spec, err_), KPORT_ERR_ARGUMENT,
	    "text");
	CHECK(spec == NULL);
	CHECK(kport_parse("em0:8080:80", &spec, NULL) == KPORT_OK);
	CHECK_FAILED(kport_parse("8080", NULL, err_), KPORT_ERR_ARGUMENT,
	    "out");
	CHECK(kport_parse(NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);
	CHECK_FAILED(kport_parse_kleene("[]", NULL, err_), KPORT_ERR_ARGUMENT,
	    "out");
	CHECK(kport_parse_kleene(NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);

	CHECK_FAILED(kport_publish(NULL, spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "jail");
	CHECK_FAILED(kport_publish("web", NULL, &options, err_),
	    KPORT_ERR_ARGUMENT, "spec");
	CHECK(kport_publish(NULL, NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);

	CHECK_FAILED(kport_unpublish(NULL, &options, err_),
	    KPORT_ERR_ARGUMENT, "jail");
	CHECK(kport_unpublish(NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);

	CHECK_FAILED(kport_unpublish_some(NULL, spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "jail");
	CHECK_FAILED(kport_unpublish_some("web", NULL, &options, err_),
	    KPORT_ERR_ARGUMENT, "spec");
	CHECK(kport_unpublish_some(NULL, NULL, NULL, NULL) ==
	    KPORT_ERR_ARGUMENT);

	CHECK_FAILED(kport_list("web", &options, NULL, err_),
	    KPORT_ERR_ARGUMENT, "out");
	CHECK(kport_list(NULL, NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);

	CHECK_FAILED(kport_watch_open(NULL, &options, NULL, err_),
	    KPORT_ERR_ARGUMENT, "out");
	CHECK(kport_watch_open(NULL, &options, &watch, NULL) == KPORT_OK);
	CHECK_FAILED(kport_watch_next(watch, NULL, err_), KPORT_ERR_ARGUMENT,
	    "report");
	CHECK_FAILED(kport_watch_next(NULL, &report, err_),
	    KPORT_ERR_ARGUMENT, "watch");
	CHECK(report == NULL);
	CHECK(kport_watch_next(NULL, NULL, NULL) == KPORT_ERR_ARGUMENT);
	CHECK(kport_watch_descriptor(NULL) == -1);
	CHECK(kport_watch_descriptor(watch) > 2);
	kport_watch_reload(NULL);
	kport_watch_free(NULL);
	kport_watch_free(watch);

	CHECK_FAILED(kport_rules(NULL, spec, &options, &ruleset, err_),
	    KPORT_ERR_ARGUMENT, "jail");
	CHECK_FAILED(kport_rules("web", NULL, &options, &ruleset, err_),
	    KPORT_ERR_ARGUMENT, "spec");
	CHECK_FAILED(kport_rules("web", spec, &options, NULL, err_),
	    KPORT_ERR_ARGUMENT, "out");
	CHECK_FAILED(kport_rules("web", spec, NULL, &ruleset, err_),
	    KPORT_ERR_UNAVAILABLE, "address");
	CHECK(ruleset == NULL);
	CHECK(kport_rules(NULL, NULL, NULL, NULL, NULL) ==
	    KPORT_ERR_ARGUMENT);

	/* with everything else in place, err may be NULL */
	CHECK(kport_rules("web", spec, &options, &ruleset, NULL) == KPORT_OK);
	CHECK(strncmp(kport_ruleset_text(ruleset), "rdr on ", 7) == 0);
	CHECK(kport_publish("web", spec, &options, NULL) == KPORT_OK);
	CHECK(kport_list(NULL, &options, &listing, NULL) == KPORT_OK);
	CHECK(kport_listing_len(listing) == 1);
	CHECK(kport_restore(&options, NULL) == KPORT_OK);
	CHECK(kport_unpublish_some("web", spec, &options, NULL) == KPORT_OK);
	CHECK(kport_unpublish("web", &options, NULL) == KPORT_OK);
#ifdef __FreeBSD__
	CHECK(kport_gc(&options, NULL) == KPORT_OK);
#else
	/* no jails, so it is unknown which of them are gone */
	CHECK(kport_gc(&options, NULL) == KPORT_ERR_UNSUPPORTED);
#endif

	CHECK(kport_spec_text(NULL) == NULL);
	CHECK(kport_spec_len(NULL) == 0);
	CHECK(kport_spec_get(NULL, 0, &mapping, sizeof(mapping)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_spec_get(spec, 0, NULL, sizeof(mapping)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_spec_get(spec, 1, &mapping, sizeof(mapping)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_spec_get(spec, SIZE_MAX, &mapping, sizeof(mapping)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_listing_len(NULL) == 0);
	CHECK(kport_listing_get(NULL, 0, &entry, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_listing_get(listing, 0, NULL, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_listing_get(listing, 1, &entry, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_outcome_changed(NULL) == 0);
	CHECK(kport_outcome_ended(NULL) == 0);
	CHECK(kport_outcome_notes(NULL) == 0);
	CHECK(kport_outcome_note(NULL, 0) == NULL);
	CHECK(kport_outcome_len(NULL) == 0);
	CHECK(kport_outcome_get(NULL, 0, &entry, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_ruleset_text(NULL) == NULL);
	CHECK(kport_error_status(NULL) == KPORT_OK);
	CHECK(strcmp(kport_error_message(NULL), "") == 0);
	CHECK(kport_error_errno(NULL) == 0);
	CHECK(kport_error_offset(NULL) == SIZE_MAX);

	kport_spec_free(spec);
	kport_listing_free(listing);
	kport_ruleset_free(ruleset);
	kport_spec_free(NULL);
	kport_outcome_free(NULL);
	kport_ruleset_free(NULL);
	kport_listing_free(NULL);
	kport_error_free(NULL);
	return (check_failed);
}
