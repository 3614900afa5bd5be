# make              the library as it ships: build/lib/libtine.so and build/lib/libtine.a
# make shared       only the shared one
# make header       writes include/tine.h from src/ffi
# make check        all tests, the C ones and the examples included
# make install      to PREFIX (below DESTDIR, for packagers); LIB=lib64 where that is the custom
# make uninstall
PREFIX  ?= /usr/local
DESTDIR ?=
LIB     ?= lib
CARGO   ?= cargo
INSTALL ?= install

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# Before 1.0 the minor version is part of the ABI's name; build.rs has the same rule.
ABI     := $(shell echo $(VERSION) | sed 's/^0\.\([0-9]*\)\..*/0.\1/; t; s/\..*//')
TARGET  := $(or $(CARGO_TARGET_DIR),target)
TO      := $(DESTDIR)$(PREFIX)

.PHONY: all shared static header check install uninstall clean
all: shared static

# One crate type at a time: cargo leaves link-time optimisation out where "lib" is built along (cargo#9672).
shared:
	$(CARGO) rustc --release --lib --crate-type cdylib
	@mkdir -p build/lib
	@cmp -s $(TARGET)/release/libtine.so build/lib/libtine.so.$(VERSION) || \
		$(INSTALL) -m 755 $(TARGET)/release/libtine.so build/lib/libtine.so.$(VERSION)
	@ln -sf libtine.so.$(VERSION) build/lib/libtine.so.$(ABI)
	@ln -sf libtine.so.$(ABI) build/lib/libtine.so

static:
	$(CARGO) rustc --release --lib --crate-type staticlib
	@mkdir -p build/lib
	@cmp -s $(TARGET)/release/libtine.a build/lib/libtine.a || $(INSTALL) -m 644 $(TARGET)/release/libtine.a build/lib/libtine.a

# build.rs writes it into its OUT_DIR, which only cargo's messages tell.
header:
	@out=$$($(CARGO) build --message-format=json | \
		sed -n '/"build-script-executed".*[#/]tine[@#]/s/.*"out_dir":"\([^"]*\)".*/\1/p'); \
	test -n "$$out" && cp "$$out/tine.h" include/tine.h && echo include/tine.h

check:
	$(CARGO) test

install: all
	$(INSTALL) -d $(TO)/include $(TO)/$(LIB)/pkgconfig
	$(INSTALL) -m 755 build/lib/libtine.so.$(VERSION) $(TO)/$(LIB)/
	ln -sf libtine.so.$(VERSION) $(TO)/$(LIB)/libtine.so.$(ABI)
	ln -sf libtine.so.$(ABI) $(TO)/$(LIB)/libtine.so
	$(INSTALL) -m 644 build/lib/libtine.a $(TO)/$(LIB)/
	$(INSTALL) -m 644 include/tine.h $(TO)/include/
	sed 's/@VERSION@/$(VERSION)/; s/@LIB@/$(LIB)/' tine.pc.in > $(TO)/$(LIB)/pkgconfig/tine.pc

uninstall:
	rm -f $(TO)/$(LIB)/libtine.so $(TO)/$(LIB)/libtine.so.$(ABI) $(TO)/$(LIB)/libtine.so.$(VERSION) $(TO)/$(LIB)/libtine.a
	rm -f $(TO)/include/tine.h $(TO)/$(LIB)/pkgconfig/tine.pc

clean:
	rm -rf build
