# make demo   two confined guests, on a real SELinux host, as a transcript
# make test   everything: on this machine, and in the bed (tests/bed)
# make test-all
#             the same, and then everything of which that takes a sample: some hours
# make bench  speed, as ratios within one run (tests/bench)
# make lint   formatting and clippy, warnings denied
# make manual writes man/svirt-exec.1 and man/completions from src/cli.rs, src/launch/settings.rs and man/*.in
# make fuzz   every parser under libFuzzer, FUZZ_SECONDS each
# make deb    Debian packages, in target/deb (packaging/deb)
# make rpm    RPM packages, in target/rpm (packaging/rpm/build)
# make packages-check
#             both, what is in them against what is expected, and the licences of what they are made of
# make policy compiles the policy module on the bases of tests/policy (secilc)
# make policy-check
#             the same with the bed's tools, and what the results and the bed's own policy allow
#             against what they must not
#
# The bed needs root (chroot, security.selinux): SUDO says how to become it.

prefix = /usr
CARGO  = cargo
FUZZ_SECONDS = 600
# A package build brings its own: DEPENDENCIES=:
DEPENDENCIES = tests/bed/dependencies
# The names that QEMUs have: when one of them comes or goes, packages make the links to svirt-exec anew
# (packaging/link-emulators).
EMULATORS = kvm qemu-kvm $(addprefix qemu-system-,aarch64 alpha amd64 arm arm64 armel armhf avr hexagon hppa i386 \
	loong64 loongarch64 m68k microblaze microblazeel mips mips64 mips64el mipsel or1k powerpc ppc ppc64 ppc64el \
	ppc64le riscv32 riscv64 rx s390x sh4 sh4eb sparc sparc64 tricore x86_64 x86_64-microvm xtensa xtensaeb)
# libvirt's hook for its guests: root puts back what a guest's own user could not.
HOOK  = svirt-exec-libvirt-hook
MAN1  = man/svirt-exec.1
MAN8  = man/svirt-exec_selinux.8 man/svirt-exec@.service.8
DOCS  = LICENSE README.md SECURITY.md CHANGELOG.md
UNITS = packaging/svirt-exec-restore.service packaging/svirt-exec-restore.path packaging/svirt-exec@.service
SUDO   = $(shell [ "$$(id -u)" = 0 ] || echo "sudo --preserve-env=BED_MIRROR,BED_SUITE,BED_ACCEL,BED_TIMEOUT,BED_MEMORY,BED_CPUS,CARGO_TARGET_DIR")
TARGET = $(or $(CARGO_TARGET_DIR),target)

all: build

build: dependencies
	$(CARGO) build --release --locked

# Installs what is missing, saying so, or names the line that does.
dependencies:
	@$(DEPENDENCIES)

# The bed is made while cargo is at work. Then what needs the packages, two things at a time: the suite is three
# jobs, which run on one disk that has been installed and is booted again. There are two processors: a job has one,
# if its tests can do with one.
test: dependencies
	mkdir -p $(TARGET)/bed
	$(MAKE) --no-print-directory -j 2 test-bed-build test-here
	tests/bed/leftovers
	$(MAKE) --no-print-directory deb-quiet
	tests/bed/jobs/prepare test $(TARGET) install first second parallel power fresh
	$(MAKE) --no-print-directory -k -j 2 policy-check packages-check test-bed-try \
		test-bed-first test-bed-second test-bed-parallel test-bed-power test-bed-fresh

test-all: test
	echo exhaustive >$(TARGET)/bed/job/filter
	BED_TIMEOUT=20000 $(SUDO) tests/bed/bed installed $(TARGET)/bed/job $(TARGET)/bed/results

test-here:
	$(CARGO) test --locked

test-bed-build:
	$(SUDO) tests/bed/bed build

test-bed-try:
	$(SUDO) tests/bed/bed try $(TARGET)/bed/job

test-bed-install:
	$(SUDO) tests/bed/bed install $(TARGET)/bed/job.install

test-bed-first test-bed-second test-bed-power test-bed-fresh: export BED_CPUS = 1

test-bed-first test-bed-second test-bed-parallel: test-bed-%: test-bed-install
	$(SUDO) tests/bed/bed installed $(TARGET)/bed/job.$* $(TARGET)/bed/results.$*

test-bed-power test-bed-fresh: test-bed-%:
	$(SUDO) tests/bed/bed $* $(TARGET)/bed/job.$*

demo: deb-quiet
	@tests/bed/jobs/prepare demo $(TARGET)
	@$(SUDO) tests/bed/bed run $(TARGET)/bed/job

shell: dependencies
	$(SUDO) tests/bed/bed shell

bench: deb-quiet
	@tests/bed/dependencies bench
	$(CARGO) bench --locked --bench instructions
	$(CARGO) bench --locked --bench plan
	tests/bed/jobs/prepare bench $(TARGET)
	$(SUDO) tests/bed/bed run $(TARGET)/bed/job

manual:
	MANUAL=write $(CARGO) test --locked --test manual what_is_made_is_what_is_kept

fuzz:
	tests/fuzz/run $(FUZZ_SECONDS)

policy:
	@tests/bed/dependencies policy
	tests/policy/compile $(TARGET)/policy

policy-check:
	tar -c policy tests/policy | $(SUDO) tests/bed/bed root sh -ec 'd=$$(mktemp -d); \
		trap "rm -rf $$d" EXIT; cd $$d; tar -x; \
		tests/policy/compile out policy/svirt_launcher.cil; \
		tests/policy/assertions out/refpolicy out/fedora /etc/selinux/default/policy/policy.*; \
		tests/policy/interfaces policy/svirt_launcher.cil policy/svirt_launcher.if'

deb:
	packaging/deb

deb-quiet: dependencies
	@mkdir -p $(TARGET)
	@packaging/deb >$(TARGET)/deb.log 2>&1 || { cat $(TARGET)/deb.log >&2; exit 1; }

rpm:
	packaging/rpm/build

packages-check:
	packaging/check

# For the packages, which are told when one of them is upgraded.
emulators:
	@printf '%s\n' $(EMULATORS)

lint: dependencies
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path tests/fuzz/Cargo.toml
	$(CARGO) clippy --locked --all-targets -- -D warnings

install:
	install -D -m 755 $(TARGET)/release/svirt-exec $(DESTDIR)$(prefix)/bin/svirt-exec
	install -D -m 755 $(TARGET)/release/svirt-exec-qmp $(DESTDIR)$(prefix)/libexec/svirt-exec/svirt-exec-qmp
	ln -sf ../../bin/svirt-exec $(DESTDIR)$(prefix)/libexec/svirt-exec/$(HOOK)
	install -D -m 755 packaging/link-emulators $(DESTDIR)$(prefix)/share/svirt-exec/link-emulators
	install -D -m 644 policy/svirt_launcher.if \
		$(DESTDIR)$(prefix)/share/selinux/devel/include/distributed/svirt_launcher.if
	install -D -m 644 policy/svirt_launcher.cil $(DESTDIR)$(prefix)/share/selinux/packages/svirt_launcher.cil
	install -D -m 644 packaging/svirt-exec.sysusers $(DESTDIR)$(prefix)/lib/sysusers.d/svirt-exec.conf
	install -D -m 644 packaging/svirt-exec.tmpfiles $(DESTDIR)$(prefix)/lib/tmpfiles.d/svirt-exec.conf
	install -d $(DESTDIR)$(prefix)/lib/systemd/system
	for unit in $(UNITS); do \
		sed 's,/usr/bin/,$(prefix)/bin/,g; s,/usr/libexec/,$(prefix)/libexec/,g' $$unit >$(DESTDIR)$(prefix)/lib/systemd/system/$${unit##*/}; done
	chmod 644 $(addprefix $(DESTDIR)$(prefix)/lib/systemd/system/,$(notdir $(UNITS)))
	install -d -m 755 $(DESTDIR)/etc/svirt-exec $(DESTDIR)/etc/libvirt/hooks/qemu.d
	install -d $(addprefix $(DESTDIR)$(prefix)/share/,man/man1 man/man8 doc/svirt-exec)
	install -m 644 $(MAN1) $(DESTDIR)$(prefix)/share/man/man1
	install -m 644 $(MAN8) $(DESTDIR)$(prefix)/share/man/man8
	install -m 644 $(DOCS) $(DESTDIR)$(prefix)/share/doc/svirt-exec
	install -D -m 644 man/completions/svirt-exec.bash \
		$(DESTDIR)$(prefix)/share/bash-completion/completions/svirt-exec
	install -D -m 644 man/completions/_svirt-exec \
		$(DESTDIR)$(prefix)/share/zsh/site-functions/_svirt-exec
	install -D -m 644 man/completions/svirt-exec.fish \
		$(DESTDIR)$(prefix)/share/fish/vendor_completions.d/svirt-exec.fish
	ln -sf $(prefix)/libexec/svirt-exec/$(HOOK) $(DESTDIR)/etc/libvirt/hooks/qemu.d/$(HOOK)

uninstall:
	rm -f $(DESTDIR)$(prefix)/bin/svirt-exec
	rm -rf $(DESTDIR)$(prefix)/libexec/svirt-exec
	rm -f $(DESTDIR)$(prefix)/share/selinux/devel/include/distributed/svirt_launcher.if
	rm -f $(DESTDIR)$(prefix)/share/selinux/packages/svirt_launcher.cil
	rm -f $(DESTDIR)$(prefix)/lib/sysusers.d/svirt-exec.conf
	rm -f $(DESTDIR)$(prefix)/lib/tmpfiles.d/svirt-exec.conf
	rm -f $(addprefix $(DESTDIR)$(prefix)/lib/systemd/system/,$(notdir $(UNITS)))
	rm -f $(addprefix $(DESTDIR)$(prefix)/share/man/man1/,$(notdir $(MAN1)))
	rm -f $(addprefix $(DESTDIR)$(prefix)/share/man/man8/,$(notdir $(MAN8)))
	rm -rf $(DESTDIR)$(prefix)/share/doc/svirt-exec $(DESTDIR)$(prefix)/share/svirt-exec
	rm -f $(DESTDIR)$(prefix)/share/bash-completion/completions/svirt-exec
	rm -f $(DESTDIR)$(prefix)/share/zsh/site-functions/_svirt-exec
	rm -f $(DESTDIR)$(prefix)/share/fish/vendor_completions.d/svirt-exec.fish
	rm -f $(DESTDIR)/etc/libvirt/hooks/qemu.d/$(HOOK)
	for directory in svirt-exec libvirt/hooks/qemu.d libvirt/hooks; do \
		[ ! -d $(DESTDIR)/etc/$$directory ] || rmdir --ignore-fail-on-non-empty $(DESTDIR)/etc/$$directory; done

clean:
	$(CARGO) clean

.PHONY: all build dependencies test test-all test-here test-bed-build test-bed-try test-bed-install \
	test-bed-first test-bed-second test-bed-parallel \
	test-bed-power test-bed-fresh demo shell bench fuzz manual policy policy-check deb deb-quiet emulators rpm packages-check lint install uninstall clean
