/*
 * publish.c in C++: objects that free themselves, and errors as exceptions.
 *
 *	c++ publish.cpp $(pkg-config --cflags --libs kport) -o publish
 *	./publish web 10.0.0.2 "em0:8080:80"
 */
#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

#include <kport.h>

namespace kport {

struct deleter {
	void operator()(kport_spec *spec) const { kport_spec_free(spec); }
	void operator()(kport_listing *l) const { kport_listing_free(l); }
	void operator()(kport_error *error) const { kport_error_free(error); }
};
template <typename T> using owned = std::unique_ptr<T, deleter>;

class error : public std::runtime_error {
public:
	explicit error(owned<kport_error> e) :
	    std::runtime_error(kport_error_message(e.get())),
	    status(kport_error_status(e.get())) {}
	const kport_status status;
};

/* By reference: e may be evaluated before the call that sets it. */
static void
check(kport_status status, kport_error *const &e)
{
	if (status != KPORT_OK)
		throw error(owned<kport_error>(e));
}

static owned<kport_spec>
parse(const std::string &text)
{
	kport_spec *spec;
	kport_error *e;

	check(kport_parse(text.c_str(), &spec, &e), e);
	return owned<kport_spec>(spec);
}

/* The ports of a jail, published while the object exists. */
class publication {
public:
	publication(std::string jail, const kport_spec *spec,
	    const kport_options &options) : jail(jail), options(options)
	{
		kport_error *e;

		check(kport_publish(jail.c_str(), spec, &options, &e), e);
	}
	~publication()
	{
		/* a destructor must not throw; kport apply removes the rest */
		if (kport_unpublish(jail.c_str(), &options, nullptr) !=
		    KPORT_OK)
			std::cerr << jail << " is still published\n";
	}
	publication(const publication &) = delete;
	publication &operator=(const publication &) = delete;
private:
	const std::string jail;
	const kport_options options;
};

static owned<kport_listing>
list(const kport_options &options)
{
	kport_listing *listing;
	kport_error *e;

	check(kport_list(nullptr, &options, &listing, &e), e);
	return owned<kport_listing>(listing);
}

} // namespace kport

int
main(int argc, char *argv[])
{
	kport_options options = KPORT_OPTIONS_INIT;

	if (argc != 4) {
		std::cerr << "usage: publish jail address \"spec ...\"\n";
		return 64;
	}
	options.backend = std::getenv("KPORT_BACKEND");
	options.state_dir = std::getenv("KPORT_STATE_DIR");
	options.addresses = argv[2];
	try {
		auto spec = kport::parse(argv[3]);
		{
			kport::publication published(argv[1], spec.get(),
			    options);
			std::cout << kport_listing_len(
			    kport::list(options).get()) << " published\n";
		}
		std::cout << kport_listing_len(kport::list(options).get())
		    << " published\n";
	} catch (const kport::error &e) {
		std::cerr << "publish: " << e.what() << '\n';
		return e.status;
	}
	return 0;
}
