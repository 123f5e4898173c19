# make demo   two confined guests, on a real SELinux host, as a transcript
# make test   everything: on this machine, and in the bed (tests/bed)
# make bench  speed, as ratios within one run (tests/bench)
# make lint   formatting and clippy, warnings denied
# make fuzz   every parser under libFuzzer, FUZZ_SECONDS each
#
# The bed needs root (chroot, security.selinux): SUDO says how to become it.

prefix = /usr
CARGO  = cargo
FUZZ_SECONDS = 600
SUDO   = $(shell [ "$$(id -u)" = 0 ] || echo "sudo --preserve-env=BED_MIRROR,BED_SUITE,BED_ACCEL,BED_TIMEOUT,BED_MEMORY,CARGO_TARGET_DIR")
TARGET = $(or $(CARGO_TARGET_DIR),target)

all: build

build: dependencies
	$(CARGO) build --release --locked

# Installs what is missing, saying so, or names the line that does.
dependencies:
	@tests/bed/dependencies

test: dependencies
	mkdir -p $(TARGET)/bed
	$(CARGO) test --locked
	tests/bed/leftovers
	tests/bed/jobs/prepare test $(TARGET)
	$(SUDO) tests/bed/bed try $(TARGET)/bed/job
	$(SUDO) tests/bed/bed run $(TARGET)/bed/job $(TARGET)/bed/results
	tests/bed/jobs/prepare power $(TARGET)
	$(SUDO) tests/bed/bed power $(TARGET)/bed/job

demo: dependencies
	@tests/bed/jobs/prepare demo $(TARGET)
	@$(SUDO) tests/bed/bed run $(TARGET)/bed/job

shell: dependencies
	$(SUDO) tests/bed/bed shell

bench: dependencies
	$(CARGO) bench --locked --bench plan

fuzz:
	tests/fuzz/run $(FUZZ_SECONDS)

lint: dependencies
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings

install:
	install -D -m 755 $(TARGET)/release/svirt-exec $(DESTDIR)$(prefix)/bin/svirt-exec
	install -D -m 644 policy/svirt_launcher.cil $(DESTDIR)$(prefix)/share/selinux/packages/svirt_launcher.cil
	install -D -m 644 packaging/svirt-exec.tmpfiles $(DESTDIR)$(prefix)/lib/tmpfiles.d/svirt-exec.conf

uninstall:
	rm -f $(DESTDIR)$(prefix)/bin/svirt-exec
	rm -f $(DESTDIR)$(prefix)/share/selinux/packages/svirt_launcher.cil
	rm -f $(DESTDIR)$(prefix)/lib/tmpfiles.d/svirt-exec.conf

clean:
	$(CARGO) clean

.PHONY: all build dependencies test demo shell bench fuzz lint install uninstall clean
